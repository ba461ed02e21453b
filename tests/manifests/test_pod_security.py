"""Which pods run at which level of Pod Security: the examples, the agents and the driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.manifests.pod_security import CONTROLS, Level, violations
from tests.support.manifests.documents import (
    CSI_POD,
    DEFAULT,
    DEVICE_PLUGIN_POD,
    EXAMPLE_POD,
    HARDENED,
    MANIFESTS,
    Manifest,
    one,
    read,
)

DRIVER = MANIFESTS / "csi" / "daemonset.yaml"


def example() -> Manifest:
    return one(read(CSI_POD), "Pod")


def in_daemonset(path: Path) -> Manifest:
    template: Manifest = one(read(path), "DaemonSet")["spec"]["template"]
    return template


@pytest.mark.parametrize("level", ["baseline", "restricted"])
@pytest.mark.parametrize("path", [CSI_POD, DEVICE_PLUGIN_POD], ids=["csi", "device plugin"])
def test_csi_volume_and_device_run_at_every_level(path: Path, level: Level) -> None:
    assert violations(one(read(path), "Pod"), level) == set()


def test_the_hostpath_volume_is_refused_and_nothing_else() -> None:
    pod = one(read(EXAMPLE_POD), "Pod")
    assert violations(pod, "baseline") == {"hostPathVolumes"}
    assert violations(pod, "restricted") == {"hostPathVolumes", "restrictedVolumes"}


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (DEFAULT, {"hostNamespaces", "hostPathVolumes", "privileged"}),
        (
            HARDENED,
            {
                *("hostNamespaces", "hostPathVolumes", "capabilities_baseline"),
                *("appArmorProfile", "seLinuxOptions"),
            },
        ),
        (DRIVER, {"hostPathVolumes", "privileged"}),
    ],
    ids=["default", "hardened", "csi"],
)
def test_agent_and_driver_exceed_baseline(path: Path, refused: set[str]) -> None:
    """Their namespace enforces no level: docs/install.md, "Pod Security"."""
    assert violations(in_daemonset(path), "baseline") == refused


def changed(change: Callable[[Manifest, Manifest], object]) -> Manifest:
    """The example after a change of its spec and its container."""
    pod = example()
    change(pod["spec"], pod["spec"]["containers"][0])
    return pod


CHANGES: dict[str, Callable[[Manifest, Manifest], object]] = {
    "hostNamespaces": lambda spec, _: spec.update(hostIPC=True),
    "privileged": lambda _, app: app["securityContext"].update(privileged=True),
    "capabilities_baseline": lambda _, app: app["securityContext"]["capabilities"].update(
        add=["NET_ADMIN"]
    ),
    "hostPathVolumes": lambda spec, _: spec["volumes"].append(
        {"name": "a", "hostPath": {"path": "/a"}}
    ),
    "hostPorts": lambda _, app: app.update(ports=[{"containerPort": 80, "hostPort": 80}]),
    "appArmorProfile": lambda spec, _: spec.update(
        securityContext={"appArmorProfile": {"type": "Unconfined"}}
    ),
    "seLinuxOptions": lambda _, app: app["securityContext"].update(
        seLinuxOptions={"type": "spc_t"}
    ),
    "procMount": lambda _, app: app["securityContext"].update(procMount="Unmasked"),
    "seccompProfile_baseline": lambda _, app: app["securityContext"].update(
        seccompProfile={"type": "Unconfined"}
    ),
    "sysctls": lambda spec, _: spec.update(securityContext={"sysctls": [{"name": "kernel.sem"}]}),
    "hostProbesAndHostLifecycle": lambda _, app: app.update(
        lifecycle={"preStop": {"httpGet": {"host": "192.0.2.1", "port": 80}}}
    ),
    "restrictedVolumes": lambda spec, _: spec["volumes"].append({"name": "a", "nfs": {}}),
    "allowPrivilegeEscalation": lambda _, app: app["securityContext"].pop(
        "allowPrivilegeEscalation"
    ),
    "runAsNonRoot": lambda _, app: app["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda _, app: app["securityContext"].update(runAsUser=0),
    "seccompProfile_restricted": lambda _, app: app["securityContext"].pop("seccompProfile"),
    "capabilities_restricted": lambda _, app: app["securityContext"]["capabilities"].pop("drop"),
}


@pytest.mark.parametrize("control", CHANGES)
def test_each_control_refuses_a_changed_example(control: str) -> None:
    assert control in violations(changed(CHANGES[control]), "restricted")


def test_each_control_of_the_model_is_tried() -> None:
    assert set(CHANGES) == CONTROLS


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_every_kind_of_container_is_examined(kind: str) -> None:
    pod = example()
    pod["spec"][kind] = [{"name": "more", "securityContext": {"privileged": True}}]
    assert "privileged" in violations(pod, "baseline")


def test_a_setting_of_the_pod_holds_for_its_containers() -> None:
    pod = example()
    context = pod["spec"]["containers"][0]["securityContext"]
    pod["spec"]["securityContext"] = {
        name: context.pop(name) for name in ("runAsNonRoot", "seccompProfile")
    }
    assert violations(pod, "restricted") == set()
