"""The per-node agent: tells every pod on its node the facts about itself.

The rooms, from the top: `service` (gRPC methods), `connections`, `grpcserver`, `ops`
(the operators' HTTP endpoints and metrics); `identity` (who is calling),
`facts` (what is true of a process or a pod), `pods` (what the kubelet says);
`parsers` (text to values); `errors`. Imports point downwards only, and
`make lint` checks that they do.
"""
