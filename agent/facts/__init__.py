"""What is true of a process or a pod: read from the host's kernel, or from what the kubelet says.

Each fact takes the handle it is read through (a descriptor, a directory); who
may ask for it is decided elsewhere.
"""
