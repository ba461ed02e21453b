"""The agent as it is deployed: the DaemonSet as a static pod of a node without a cluster.

kubectl makes the DaemonSet from the manifests, by the overlay of docs/install.md
write one: trust in the kubelet's own certificate, and a client certificate, since there is
no API server that could know a token. From it the pod is taken as it stands.
"""

from __future__ import annotations

import copy
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.manifests.documents import documents, one
from tests.support.manifests.kubectl import find_kubectl, kustomize
from tests.support.repository import ROOT

VARIANTS = {"default": "netutil/manifests", "hardened": "netutil/manifests/hardened"}
CLIENT = Path("/var/lib/pki/agent.pem"), Path("/var/lib/pki/agent.key")
"""The certificate and key that the node makes for the agent."""
_CERTIFICATES = "/etc/netutil-client"


def daemon_set(
    variant: str, patches: list[dict[str, Any]], *components: str
) -> list[dict[str, Any]]:
    """Return the objects of an overlay over a variant of the manifests, as kubectl makes them.

    `components` are names of folders of manifests/.
    """
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [VARIANTS[variant]],
        "components": [
            f"netutil/manifests/{one}" for one in ("examples/self-signed-kubelet", *components)
        ],
        "patches": [
            {"target": {"kind": "DaemonSet", "name": "netutil-agent"}, "patch": yaml.dump(patches)}
        ],
    }
    with tempfile.TemporaryDirectory(prefix="netutil-overlay-") as name:
        shutil.copytree(ROOT / "manifests", Path(name, "netutil/manifests"))
        Path(name, "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
        return documents(kustomize(find_kubectl(), Path(name)))


def client_certificate() -> list[dict[str, Any]]:
    """Patches that give the agent a client certificate instead of a token."""
    container = "/spec/template/spec/containers/0"
    certificate, key = (f"{_CERTIFICATES}/{path.name}" for path in CLIENT)
    volume = {"name": "client", "hostPath": {"path": str(CLIENT[0].parent), "type": "Directory"}}
    mount = {"name": "client", "mountPath": _CERTIFICATES, "readOnly": True}
    return [
        {"op": "add", "path": f"{container}/args/-", "value": value}
        for value in (
            f"--kubelet-client-cert={certificate}",
            f"--kubelet-client-key={key}",
            "--kubelet-token=",
        )
    ] + [
        {"op": "add", "path": f"{container}/volumeMounts/-", "value": mount},
        {"op": "add", "path": "/spec/template/spec/volumes/-", "value": volume},
    ]


def static_pod(objects: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the DaemonSet's pod, without what only an API server gives."""
    template = one(objects, "DaemonSet")["spec"]["template"]
    spec = copy.deepcopy(template["spec"])
    for field in ("serviceAccountName", "automountServiceAccountToken"):
        del spec[field]
    metadata = {**copy.deepcopy(template["metadata"]), "name": name, "namespace": "netutil"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def agent_pod(variant: str = "default", suffix: str = "", *components: str) -> dict[str, Any]:
    """Return the static pod of a variant. Pods of other suffixes may run beside it."""
    return static_pod(_objects(variant, *components), f"netutil-agent-{variant}{suffix}")


@functools.cache
def _objects(variant: str, *components: str) -> list[dict[str, Any]]:
    return daemon_set(variant, client_certificate(), *components)
