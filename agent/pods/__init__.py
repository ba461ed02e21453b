"""The pods of this node, as the kubelet reports them.

Sources fetch a list and block while they do (`pulled`), or follow a stream (`pushed`);
`directory` answers from the last list, and never lets one caller's wait become another's.
The package decodes with msgspec what it reads: the models of `kubernetes.client`
would cost the agent 22 MiB. A test proves that both read the same.
"""
