"""Pure functions from what the kernel and Kubernetes write to values. They open nothing."""
