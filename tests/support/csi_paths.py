"""A target path as the kubelet passes it to a CSI driver."""

from __future__ import annotations

PODS = "/var/lib/kubelet/pods"


UID = "0f5f5b6a-3f0e-4f6e-9d55-1f2b6a3c4d5e"


PATH = f"{PODS}/{UID}/volumes/kubernetes.io~csi/netutil/mount"
