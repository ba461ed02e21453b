"""EAL arguments of a DPDK program from the facts of a container."""
