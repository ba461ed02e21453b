"""What the kubelet says about the pods of this node. The only room that may import `kubernetes`.

Sources fetch a list and block while they do; `directory` keeps the last one,
decides when a newer is needed, and never lets one caller's wait become another's.
"""
