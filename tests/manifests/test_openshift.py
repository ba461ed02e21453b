"""The security context constraints: they admit the agent's pods, and not more than they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.manifests.scc import rejections
from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    HARDENED_SCC,
    SCC,
    one,
    pod_of,
    read,
)
from tests.support.manifests.overlays import with_components

PAIRS = {"default": (DEFAULT, SCC), "hardened": (HARDENED, HARDENED_SCC)}
KIND = "SecurityContextConstraints"
COMPONENTS = {"default": "openshift", "hardened": "hardened/openshift"}


@pytest.mark.parametrize("base", PAIRS)
def test_the_constraints_admit_the_pods_of_the_overlay(base: str) -> None:
    objects = with_components(base, COMPONENTS[base], "selinux")
    assert rejections(one(objects, KIND), pod_of(objects)) == set()


@pytest.mark.parametrize("base", PAIRS)
def test_the_account_is_the_only_user(base: str) -> None:
    objects = with_components(base, COMPONENTS[base])
    account = one(objects, "ServiceAccount")["metadata"]
    user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert (one(objects, KIND)["users"], one(objects, KIND)["groups"]) == ([user], [])
    assert pod_of(objects)["serviceAccountName"] == account["name"]


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *((pair, "allowHostPID", False) for pair in PAIRS),
        *((pair, "allowHostDirVolumePlugin", False) for pair in PAIRS),
        *((pair, "volumes", ["hostPath", "emptyDir"]) for pair in PAIRS),
        *((pair, "volumes", ["hostPath", "projected"]) for pair in PAIRS),
        ("default", "allowPrivilegedContainer", False),
        ("default", "allowPrivilegeEscalation", False),
        ("hardened", "allowedCapabilities", ["SYS_PTRACE", "DAC_READ_SEARCH", "SETUID"]),
        ("hardened", "seccompProfiles", []),
    ],
)
def test_the_pods_need_each_permission(path: str, field: str, value: Any) -> None:
    manifest, constraints = PAIRS[path]
    changed = {**one(read(constraints), KIND), field: value}
    assert field in rejections(changed, pod_of(read(manifest)))


@pytest.mark.parametrize("field", ["allowHostIPC", "allowHostNetwork", "allowHostPorts"])
@pytest.mark.parametrize("path", [SCC, HARDENED_SCC], ids=["default", "hardened"])
def test_the_constraints_permit_nothing_else(path: Path, field: str) -> None:
    assert one(read(path), KIND)[field] is False


def test_the_hardened_constraints_refuse_the_privileged_agent() -> None:
    found = rejections(one(read(HARDENED_SCC), KIND), pod_of(read(DEFAULT)))
    assert found == {"allowPrivilegedContainer", "allowPrivilegeEscalation"}
