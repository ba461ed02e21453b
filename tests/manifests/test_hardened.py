"""The hardened variant: the default one but for what it is there for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.dockerfile import stage
from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    agent_of,
    initial_of,
    mounts_of,
    pod_of,
    read,
)
from tests.support.manifests.privileges import LOCALHOST_PROFILE, PROFILE, hardened_capabilities
from tests.support.repository import ROOT

_POD = "DaemonSet/spec/template/spec"
_CONTAINER = f"{_POD}/containers/agent"
_CONTEXT = f"{_CONTAINER}/securityContext"
_SYS = f"{_CONTAINER}/volumeMounts/host-sys"
_GIVES_PROFILE = (f"{_POD}/initContainers/", f"{_POD}/volumes/seccomp")
_ABSENT = object()


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value below `value` with its path; items of a list are named if they have a name."""
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from leaves(below, f"{path}/{key}")
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{item.get('name', number)}")
    else:
        yield path, value


def flat(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found = [leaf for manifest in objects for leaf in leaves(manifest, manifest["kind"])]
    assert len(found) == len(dict(found))
    return dict(found)


def documented_capabilities() -> set[str]:
    """The capabilities of the table in docs/install.md."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `CAP_([A-Z_]+)` \|", text, re.MULTILINE))


def test_nothing_but_these_fields_differs() -> None:
    default, hardened = flat(read(DEFAULT)), flat(read(HARDENED))
    differing = {
        path: (default.get(path, _ABSENT), hardened.get(path, _ABSENT))
        for path in default.keys() | hardened.keys()
        if default.get(path, _ABSENT) != hardened.get(path, _ABSENT)
        and not path.startswith(_GIVES_PROFILE)
    }
    assert differing == {
        f"{_CONTEXT}/privileged": (True, _ABSENT),
        f"{_CONTEXT}/allowPrivilegeEscalation": (_ABSENT, False),
        f"{_CONTEXT}/capabilities/drop": (_ABSENT, ["ALL"]),
        f"{_CONTEXT}/capabilities/add": (
            _ABSENT,
            ["SYS_PTRACE", "DAC_READ_SEARCH", "SETUID", "SETGID"],
        ),
        f"{_CONTEXT}/seccompProfile/type": (_ABSENT, "Localhost"),
        f"{_CONTEXT}/seccompProfile/localhostProfile": (_ABSENT, LOCALHOST_PROFILE),
        f"{_CONTEXT}/appArmorProfile/type": (_ABSENT, "Unconfined"),
        f"{_CONTEXT}/seLinuxOptions/type": (_ABSENT, "spc_t"),
        f"{_SYS}/mountPropagation": ("HostToContainer", _ABSENT),
        f"{_SYS}/recursiveReadOnly": (_ABSENT, "IfPossible"),
    }


def test_the_order_of_what_is_read_in_order_is_the_same() -> None:
    default, hardened = agent_of(read(DEFAULT)), agent_of(read(HARDENED))
    for key in ("args", "env", "ports"):
        assert default[key] == hardened[key]


def test_its_capabilities_are_the_documented_ones() -> None:
    assert hardened_capabilities() == documented_capabilities()


def test_it_cannot_write_to_what_is_mounted_below_sys() -> None:
    mount, _ = mounts_of(read(HARDENED))["/host/sys"]
    # The two exclude each other, and the recursive kind needs the plain one.
    assert mount["readOnly"] is True
    assert mount["recursiveReadOnly"] == "IfPossible"
    assert "mountPropagation" not in mount


def test_the_profile_is_on_the_node_before_the_agent() -> None:
    (giver,) = initial_of(read(HARDENED))
    (mount,) = giver["volumeMounts"]
    (volume,) = (one for one in pod_of(read(HARDENED))["volumes"] if one["name"] == mount["name"])
    assert giver["image"] == agent_of(read(HARDENED))["image"]
    directory = volume["hostPath"]["path"]
    assert directory == str(Path("/var/lib/kubelet/seccomp", LOCALHOST_PROFILE).parent)
    assert (
        f"mv {mount['mountPath']}/.agent.json {mount['mountPath']}/agent.json" in giver["args"][0]
    )
    assert Path(LOCALHOST_PROFILE).name == "agent.json"
    assert giver["volumeMounts"] == [{"name": "seccomp", "mountPath": mount["mountPath"]}]
    # The agent itself cannot change it.
    assert mount["name"] not in {one["name"] for one in agent_of(read(HARDENED))["volumeMounts"]}


def test_the_container_that_installs_the_profile_is_powerless() -> None:
    (giver,) = initial_of(read(HARDENED))
    context = giver["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_image_holds_the_profile_where_it_is_taken_from() -> None:
    (giver,) = initial_of(read(HARDENED))
    build = stage("build")
    (copied,) = ([*sources, to] for sources, to in build.copies() if to.endswith("seccomp.json"))
    assert copied == [PROFILE.relative_to(ROOT).as_posix(), "./seccomp.json"]
    (run,) = (line for line in build.every("RUN") if "seccomp.json" in line)
    *_, source, target = shlex.split(run)
    assert source == "seccomp.json"
    held = target.replace("$VENV", build.variables("ENV")["VENV"])
    assert f"cp {held} " in giver["args"][0]
