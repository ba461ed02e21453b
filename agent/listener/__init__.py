"""One Unix socket that another agent may take over: bind, watch, accept.

`unix_socket` binds it, `acceptor` accepts on it, `ownership` rebinds it when something else is at
its path, and `stale` removes what agents that were killed left beside it. The package knows
nothing of connections after accept(2), and of the agent it imports only `errors` and
`identity.pinning`.
"""
