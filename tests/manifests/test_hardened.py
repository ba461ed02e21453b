"""The hardened variant: the default one but for what it is there for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.manifests.documents import (
    DEFAULT,
    HARDENED,
    ROOT,
    agent_of,
    hardened_capabilities,
    mounts_of,
    read,
)

_CONTAINER = "DaemonSet/spec/template/spec/containers/agent"
_CONTEXT = f"{_CONTAINER}/securityContext"
_SYS = f"{_CONTAINER}/volumeMounts/host-sys"
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
    }
    assert differing == {
        f"{_CONTEXT}/privileged": (True, _ABSENT),
        f"{_CONTEXT}/allowPrivilegeEscalation": (_ABSENT, False),
        f"{_CONTEXT}/capabilities/drop": (_ABSENT, ["ALL"]),
        f"{_CONTEXT}/capabilities/add": (
            _ABSENT,
            ["SYS_PTRACE", "DAC_READ_SEARCH", "SETUID", "SETGID"],
        ),
        f"{_CONTEXT}/seccompProfile/type": (_ABSENT, "RuntimeDefault"),
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
