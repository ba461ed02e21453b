"""The security context constraints admit the pods of each DaemonSet, and permit no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.chart import chart
from tests.manifests.scc import rejections
from tests.support.manifests.documents import (
    CSI_SCC,
    DEFAULT,
    HARDENED,
    HARDENED_SCC,
    MANIFESTS,
    SCC,
    Manifest,
    one,
    pod_of,
    read,
)
from tests.support.manifests.overlays import BASES, with_components

DRIVER = "netutil-csi"
PAIRS = {
    "default": (DEFAULT, SCC),
    "hardened": (HARDENED, HARDENED_SCC),
    "csi": (MANIFESTS / "csi" / "daemonset.yaml", CSI_SCC),
}
KIND = "SecurityContextConstraints"
COMPONENTS = {"default": "openshift", "hardened": "hardened/openshift"}


def driver_of(objects: list[Manifest]) -> Manifest:
    """The driver's constraints in an overlay or a release with those of the agent."""
    return one([found for found in objects if found["metadata"]["name"] == DRIVER], KIND)


def pod_in(path: Path) -> Manifest:
    """The pod of the one DaemonSet of a file."""
    objects = read(path)
    return pod_of(objects, one(objects, "DaemonSet")["metadata"]["name"])


@pytest.mark.parametrize("base", BASES)
def test_the_drivers_constraints_admit_its_pods(base: str) -> None:
    objects = with_components(base, COMPONENTS[base], "selinux", "csi", "csi/openshift")
    pod = pod_of(objects, DRIVER)
    assert rejections(driver_of(objects), pod) == set()
    accounts = {
        one["metadata"]["name"]: one["metadata"]["namespace"]
        for one in objects
        if one["kind"] == "ServiceAccount"
    }
    account = pod["serviceAccountName"]
    user = f"system:serviceaccount:{accounts[account]}:{account}"
    assert (driver_of(objects)["users"], driver_of(objects)["groups"]) == ([user], [])


@pytest.mark.parametrize("hardened", ["false", "true"])
def test_the_chart_makes_the_drivers_constraints(hardened: str) -> None:
    objects = chart("csi.enabled=true", "openshift.scc=true", f"hardened={hardened}")
    assert driver_of(objects) == one(read(CSI_SCC), KIND)


@pytest.mark.parametrize("base", COMPONENTS)
def test_the_constraints_admit_the_pods_of_the_overlay(base: str) -> None:
    objects = with_components(base, COMPONENTS[base], "selinux")
    assert rejections(one(objects, KIND), pod_of(objects)) == set()


@pytest.mark.parametrize("base", COMPONENTS)
def test_the_account_is_the_only_user(base: str) -> None:
    objects = with_components(base, COMPONENTS[base])
    account = one(objects, "ServiceAccount")["metadata"]
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert (one(objects, KIND)["users"], one(objects, KIND)["groups"]) == ([user], [])
    assert pod_of(objects)["serviceAccountName"] == account["name"]


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((pair, "allowHostPID", False) for pair in COMPONENTS),
        *((pair, "allowHostDirVolumePlugin", False) for pair in PAIRS),
        *((pair, "volumes", ["hostPath", "emptyDir"]) for pair in COMPONENTS),
        *((pair, "volumes", ["hostPath", "projected"]) for pair in COMPONENTS),
        ("csi", "volumes", []),
        *((pair, "allowPrivilegedContainer", False) for pair in ("default", "csi")),
        *((pair, "allowPrivilegeEscalation", False) for pair in ("default", "csi")),
        ("hardened", "allowedCapabilities", ["SYS_PTRACE", "DAC_READ_SEARCH", "SETUID"]),
        ("hardened", "seccompProfiles", []),
    ],
)
def test_the_pods_need_each_permission(path: str, field: str, value: Any) -> None:
    manifest, constraints = PAIRS[path]
    changed = {**one(read(constraints), KIND), field: value}
    assert field in rejections(changed, pod_in(manifest))


@pytest.mark.parametrize("field", ["allowHostIPC", "allowHostNetwork", "allowHostPorts"])
@pytest.mark.parametrize("path", [SCC, HARDENED_SCC, CSI_SCC], ids=list(PAIRS))
def test_the_constraints_permit_nothing_else(path: Path, field: str) -> None:
    assert one(read(path), KIND)[field] is False


def test_the_hardened_constraints_refuse_the_privileged_agent() -> None:
    found = rejections(one(read(HARDENED_SCC), KIND), pod_of(read(DEFAULT)))
    assert found == {"allowPrivilegedContainer", "allowPrivilegeEscalation"}


def test_the_drivers_constraints_refuse_the_agent() -> None:
    assert rejections(one(read(CSI_SCC), KIND), pod_in(DEFAULT)) == {"allowHostPID", "volumes"}
