"""Pod source over the kubelet's local Pods API (KEP-4188).

Needs no cluster rights and no TLS: a process that may open the socket may ask. Pods come as core/v1
in protobuf, of which only what the agent uses is read.
"""
