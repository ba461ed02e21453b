"""The CSI driver as a program, in mount namespaces of its own."""
