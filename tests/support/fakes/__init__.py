"""Fakes of the kubelet, the API server and the agent."""
