"""Sources of the pod list: the kubelet, the API server, a file."""
