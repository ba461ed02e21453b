"""The files that containerd, the kubelet and CNI are started with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.e2e.images import PAUSE_IMAGE

# An emulated processor is some ten times slower.
SLOWNESS = float(os.environ.get("NETUTIL_SLOWNESS", "1"))
Driver = Literal["cgroupfs", "systemd"]
CONTAINERD_ROOT = "/var/lib/containerd"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
STATIC_PODS = "/var/lib/manifests"
RESULTS = Path("/run/results")
"""Where pods write the answers that they got."""
POD_NETWORK = "198.51.100.0/24"  # RFC 5737: for documentation
KUBELET_PORT, KUBELET_HEALTH_PORT = 10250, 10248
CLIENT_CA = "/var/lib/pki/clients.pem"
_CNI = "/var/lib/cni-conf"


def containerd_settings(driver: Driver) -> str:
    """config.toml. Without CAP_SYS_RESOURCE runc may not lower an oom score."""
    systemd = "true" if driver == "systemd" else "false"
    return f"""\
version = 2
root = "{CONTAINERD_ROOT}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{_CNI}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = {systemd}
"""


def cni_settings() -> dict[str, str]:
    """Path to content: a veth pair for each pod."""
    ranges = [[{"subnet": POD_NETWORK}]]
    plugin = {
        "type": "ptp",
        "ipam": {"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]},
    }
    conflist = {"cniVersion": "0.4.0", "name": "e2e", "plugins": [plugin]}
    return {f"{_CNI}/10-ptp.conflist": json.dumps(conflist)}


def kubelet_settings(
    *, driver: Driver, cgroup: str, exclusive_cpus: bool, webhook: bool
) -> dict[str, Any]:
    """A KubeletConfiguration. Its serving certificate is the one that it makes for itself."""
    settings: dict[str, Any] = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "staticPodPath": STATIC_PODS,
        "fileCheckFrequency": "1s",
        "syncFrequency": "10s",
        "port": KUBELET_PORT,
        "healthzPort": KUBELET_HEALTH_PORT,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": webhook, "cacheTTL": "1s"},
            "x509": {"clientCAFile": CLIENT_CA},
        },
        "authorization": {
            "mode": "Webhook" if webhook else "AlwaysAllow",
            # By itself a kubelet goes by a right for five minutes after it was taken away.
            "webhook": {"cacheAuthorizedTTL": "1s", "cacheUnauthorizedTTL": "1s"},
        },
        "cgroupDriver": driver,
        "cgroupRoot": f"/{cgroup}" if cgroup else "/",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "cpuManagerPolicy": "static" if exclusive_cpus else "none",
        "failSwapOn": False,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%"},
        # Images cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        "maxPods": 110,
    }
    if exclusive_cpus:
        # Rounded up: one whole CPU is left for the others to share.
        settings["systemReserved"] = {"cpu": "100m"}
    return settings


def as_yaml(content: dict[str, Any]) -> str:
    """Return a file of one document."""
    return yaml.safe_dump(content)
