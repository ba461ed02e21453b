"""Offers the socket's directory to pods as a resource of the kubelet's device plugins.

A pod that asks for the resource gets the directory mounted, read-only and without a volume. So it
may run in a namespace that forbids hostPath volumes. The kubelet is the only caller.
"""
