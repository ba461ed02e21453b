"""Pure parsers of what the kernel and Kubernetes write. They open nothing."""
