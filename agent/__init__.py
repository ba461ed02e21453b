"""The per-node agent: answers each pod's gRPC calls about the pod itself.

A call passes `listener`, `connections` and `grpcserver` (the socket, the identified connection,
HTTP/2 and gRPC), `api` (the method), `collect` (the caller and the caches) and `facts` (the
readers). `admin` and `watch` build on `collect`. `identity` says which process and container calls,
`pods` and `kubelet` what the kubelet reports, `limits` what a pod may use. Imports point downwards
only: `make lint` checks the layers of setup.cfg.
"""
