"""Servers that stand in for the kubelet, the API server and the agent."""
