"""Pure parsers of what the kernel and Kubernetes write. Parsers open nothing."""
