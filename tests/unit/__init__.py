"""One package of the agent or of the client in the test's own process. Some need root: they read
real namespaces, cgroups and processes.
"""
