"""Real gRPC and HTTP/2 clients against `agent/grpcserver`: `make interop`.

Each client is a program that is started as `PROGRAM TARGET CASE [AUTHORITY]` and prints what the
case brought as one line of JSON. `cases.py` has what each case does; all programs ask
v1alpha.NetUtil, so that they can ask an agent as well as `server.py`.
"""
