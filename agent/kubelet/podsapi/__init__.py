"""Pod source over the kubelet's local Pods API (KEP-4188).

No right in the cluster and no TLS: who may open the socket may ask. Pods come as core/v1 in
protobuf, of which only what the agent uses is read.
"""
