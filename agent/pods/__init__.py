"""The pods of this node, as the kubelet reports them.

Sources fetch a list and block while they do (`pulled`), or follow a stream (`pushed`);
`directory` answers from the last list, and never lets one caller's wait become another's.
The package decodes with msgspec what it reads, and only its client of the API server imports
`kubernetes`, for logins and requests.
"""
