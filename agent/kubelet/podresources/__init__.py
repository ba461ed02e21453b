"""Client of the kubelet's PodResources API, version v1.

This API identifies a pod by its name, not by its UID. `directory` sees to it that a pod
created again under its old name is never answered with what the old one had.
"""
