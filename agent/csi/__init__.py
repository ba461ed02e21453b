"""`netutil-csi`: a CSI driver that mounts the directory of the agent's socket in pods.

The driver is for namespaces whose policy forbids hostPath volumes. The kubelet is the only caller.
The driver is a program of its own: the agent imports nothing of it, and it imports nothing of the
agent but the set-up of the log.

A start is `startup` (the mount tree, the capabilities), then `driver` (the sockets, the server).
A call is `node`, `identity` or `registration` (the methods), then `volumes` (mount and unmount).
`requests`, `target` and `mountinfo` are parsers; `syscalls` has the system calls.
"""
