"""Client of the kubelet's PodResources API, version v1.

Names, not UIDs, are all that this API tells of a pod. `directory` sees to it that a pod
created again under its old name is never answered with what the old one had.
"""
