"""HTTPS client of the kubelet and the API server."""
