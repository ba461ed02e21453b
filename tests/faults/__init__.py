"""Faults of the node under a running agent: clock, descriptors, kubelet, memory, socket."""
