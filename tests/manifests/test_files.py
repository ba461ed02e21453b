"""Every file of the manifests: valid for the versions it is for, and of use."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.support.manifests.documents import (
    APISERVER_RBAC,
    CSI_POD,
    CSI_POLICY,
    CSI_SCC,
    DEFAULT,
    DEVICE_PLUGIN_POD,
    DEVICE_PLUGIN_POLICY,
    EXAMPLE_POD,
    HARDENED,
    HARDENED_SCC,
    HOSTPATH_POLICY,
    MANIFESTS,
    NETWORK_POLICY,
    NODES_PROXY,
    SCC,
    documents,
    one,
    read,
)
from tests.support.manifests.kubectl import find_kubectl, kustomize

# The oldest version that a file is for, and newer ones.
VERSIONS = {
    DEFAULT: ("1.25", "1.33", "1.37"),
    HARDENED: ("1.31", "1.33", "1.37"),
    NODES_PROXY: ("1.25", "1.33", "1.37"),
    APISERVER_RBAC: ("1.25", "1.33", "1.37"),
    MANIFESTS / "resource-claims" / "rbac.yaml": ("1.25", "1.33", "1.37"),
    EXAMPLE_POD: ("1.25", "1.33", "1.37"),
    CSI_POD: ("1.25", "1.33", "1.37"),
    DEVICE_PLUGIN_POD: ("1.25", "1.33", "1.37"),
    HOSTPATH_POLICY: ("1.30", "1.33", "1.37"),
    DEVICE_PLUGIN_POLICY: ("1.30", "1.33", "1.37"),
    CSI_POLICY: ("1.36", "1.37"),
    NETWORK_POLICY: ("1.25", "1.33", "1.37"),
}


def named(path: object) -> str:
    return path.relative_to(MANIFESTS).as_posix() if isinstance(path, Path) else str(path)


@pytest.mark.parametrize(
    ("path", "version"),
    [(path, version) for path, versions in VERSIONS.items() for version in versions],
    ids=named,
)
def test_every_object_is_valid(path: Path, version: str) -> None:
    objects = read(path)
    assert objects
    for manifest in objects:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_an_unknown_field_is_found() -> None:
    pod = one(read(EXAMPLE_POD), "Pod")
    pod["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="hostPid"):
        kubernetes_validate.validate(pod, "1.33", strict=True)


def test_there_is_no_other_file() -> None:
    kustomizations = {
        MANIFESTS / "kustomization.yaml",
        MANIFESTS / "hardened" / "kustomization.yaml",
        MANIFESTS / "policies" / "kustomization.yaml",
        MANIFESTS / "apiserver" / "kustomization.yaml",
        MANIFESTS / "device-plugin" / "kustomization.yaml",
        MANIFESTS / "pods-api" / "kustomization.yaml",
        MANIFESTS / "resource-claims" / "kustomization.yaml",
        MANIFESTS / "networkpolicy" / "kustomization.yaml",
        MANIFESTS / "selinux" / "kustomization.yaml",
        MANIFESTS / "openshift" / "kustomization.yaml",
        MANIFESTS / "hardened" / "openshift" / "kustomization.yaml",
        MANIFESTS / "examples" / "self-signed-kubelet" / "kustomization.yaml",
        MANIFESTS / "examples" / "without-claims" / "kustomization.yaml",
    }
    monitoring = {  # test_monitoring.py
        MANIFESTS / "monitoring" / name
        for name in ("kustomization.yaml", "alerts.yaml", "podmonitor.yaml", "dashboard.json")
    }
    csi = {  # test_csi.py
        *(MANIFESTS / "csi" / f"{name}.yaml" for name in ("csidriver", "daemonset")),
        *(MANIFESTS / "csi" / "kustomization.yaml",),
        *(MANIFESTS / "csi" / "openshift" / "kustomization.yaml",),
    }
    openshift = {SCC, HARDENED_SCC, CSI_SCC}  # test_openshift.py
    others = {MANIFESTS / "hardened" / "seccomp.json", *monitoring, *openshift, *csi}
    chart = MANIFESTS / "helm"  # test_helm.py
    files = {path for path in MANIFESTS.rglob("*") if path.is_file() and chart not in path.parents}
    assert files == set(VERSIONS) | kustomizations | others


@pytest.mark.parametrize("path", [DEFAULT, HARDENED], ids=named)
def test_a_manifest_comes_before_those_that_need_it(path: Path) -> None:
    """kubectl applies a file from top to bottom."""
    kinds = [manifest["kind"] for manifest in read(path)]
    assert kinds == [
        "Namespace",
        "ResourceQuota",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
    ]


@pytest.mark.parametrize("path", [DEFAULT, HARDENED], ids=named)
def test_an_overlay_builds_on_the_same_objects(path: Path) -> None:
    listed = yaml.safe_load((path.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    assert listed["resources"] == [path.name]
    made = documents(kustomize(find_kubectl(), path.parent))
    assert {manifest["kind"]: manifest for manifest in made} == {
        manifest["kind"]: manifest for manifest in read(path)
    }
