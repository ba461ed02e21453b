"""HTTPS to the kubelet and the API server."""
