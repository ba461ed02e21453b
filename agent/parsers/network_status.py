"""The network-status annotation of a pod.

Sources: Kubernetes Network Custom Resource Definition De-facto Standard 1.3,
section 4.1 (network status), and Device Information Specification 1.1.0, both
of the Network Plumbing Working Group. Keys that the specifications do not name
are preserved as they stand.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from netutil.agent.errors import Inconsistent, Reason

T = TypeVar("T")
_LARGEST_MTU = 2**32 - 1
_DEEPEST = 20
"""Levels of lists and objects. The standards need 5; protobuf readers give up at about 30."""
_LARGEST_NUMBER_DIGITS = 300
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")


@dataclass(frozen=True, slots=True)
class DNS:
    """The DNS settings that the network's plugin returned."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """The part of a device-info that belongs to its type, keys as the specification spells them."""

    fields: Mapping[str, str]
    extensions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The device behind an interface; `devices` holds one entry per type object that is present."""

    type: str
    version: str
    devices: Mapping[str, Device]
    extensions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """One network attachment of a pod."""

    name: str = ""
    interface: str = ""
    mac: str = ""
    ips: tuple[str, ...] = ()
    default: bool = False
    mtu: int | None = None
    gateway: tuple[str, ...] = ()
    dns: DNS | None = None
    device_info: DeviceInfo | None = None
    extensions: Mapping[str, Any] = field(default_factory=dict)


DEVICE_FIELDS: Mapping[str, tuple[str, ...]] = {
    "pci": ("pci-address", "vhost-net", "rdma-device", "pf-pci-address", "representor-device"),
    "vdpa": (
        "parent-device",
        "driver",
        "path",
        "pci-address",
        "pf-pci-address",
        "representor-device",
    ),
    "vhost-user": ("mode", "path"),
    "memif": ("role", "path", "mode"),
}


class _Malformed(Exception):
    """A value is not what the specification says; `where` is its path in the annotation."""

    def __init__(self, where: str, expected: str, found: object) -> None:
        shown = json.dumps(found, ensure_ascii=True)
        super().__init__(f"{where} must be {expected}, not {shown[:60]}")


def parse_network_status(text: str, *, read: str) -> tuple[NetworkStatus, ...]:
    """Return the attachments in the annotation's order.

    Raises `Inconsistent` that says where the text breaks the specification.
    `read` names the annotation and the pod, for that error.
    """
    try:
        document = json.loads(text, parse_int=_integer)
        _ensure_sendable("", document, 1)
        return tuple(
            _network(f"[{number}]", _object(f"[{number}]", item))
            for number, item in enumerate(_list("the annotation", document))
        )
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = f"it is nested more than {_DEEPEST} levels deep"
    except _Malformed as error:
        problem = str(error)
    raise Inconsistent(
        Reason.NETWORK_STATUS_MALFORMED,
        f"The pod's network status cannot be used: {problem}.",
        read=read,
        advice="The annotation is written by the CNI meta-plugin (Multus, OVN-Kubernetes);"
        " mend it there.",
    )


def _ensure_sendable(where: str, value: object, level: int) -> None:
    """Raise `_Malformed` for what Python's JSON lets pass and an answer cannot carry."""
    here = where or "the annotation"
    if isinstance(value, str):
        _ensure_text(here, value)
    elif isinstance(value, int | float):
        if not math.isfinite(value):
            raise _Malformed(here, "a finite number", value)
    elif isinstance(value, list | dict):
        if level > _DEEPEST:
            raise _Malformed(here, f"at most {_DEEPEST} levels deep", value)
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in entries:
            if isinstance(key, str):
                _ensure_text(f"a key of {here}", key)
            _ensure_sendable(where + _step(key), item, level + 1)


def _ensure_text(where: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Malformed(where, "text without a lone surrogate", text)


def _step(key: int | str) -> str:
    """Return a key as part of a path; what is in it was chosen by a stranger."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key)[:60]}]"


def _network(where: str, found: dict[str, Any]) -> NetworkStatus:
    rest = dict(found)
    return NetworkStatus(
        name=_take(rest, where, "name", _string, ""),
        interface=_take(rest, where, "interface", _string, ""),
        mac=_take(rest, where, "mac", _string, ""),
        ips=_take(rest, where, "ips", _strings, ()),
        default=_take(rest, where, "default", _boolean, False),
        mtu=_take(rest, where, "mtu", _mtu, None),
        gateway=_take(rest, where, "gateway", _strings, ()),
        dns=_take(rest, where, "dns", _dns, None),
        device_info=_take(rest, where, "device-info", _device_info, None),
        extensions=rest,
    )


def _dns(where: str, value: object) -> DNS:
    found = _object(where, value)
    return DNS(
        nameservers=_take(found, where, "nameservers", _strings, ()),
        domain=_take(found, where, "domain", _string, ""),
        search=_take(found, where, "search", _strings, ()),
        options=_take(found, where, "options", _strings, ()),
    )


def _device_info(where: str, value: object) -> DeviceInfo:
    rest = dict(_object(where, value))
    devices = {
        kind: _device(f"{where}.{kind}", rest.pop(kind), names)
        for kind, names in DEVICE_FIELDS.items()
        if rest.get(kind) is not None
    }
    return DeviceInfo(
        type=_take(rest, where, "type", _string, ""),
        version=_take(rest, where, "version", _string, ""),
        devices=devices,
        extensions=rest,
    )


def _device(where: str, value: object, names: tuple[str, ...]) -> Device:
    rest = dict(_object(where, value))
    fields = {name: _take(rest, where, name, _string, "") for name in names}
    return Device(fields, rest)


def _take(
    found: dict[str, Any], where: str, key: str, convert: Callable[[str, object], T], absent: T
) -> T:
    """Remove a key and return its value; null counts as absent, as in Go's encoding/json."""
    value = found.pop(key, None)
    return absent if value is None else convert(f"{where}.{key}", value)


def _object(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Malformed(where, "an object", value)
    return value


def _list(where: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise _Malformed(where, "a list", value)
    return value


def _string(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise _Malformed(where, "a string", value)
    return value


def _strings(where: str, value: object) -> tuple[str, ...]:
    return tuple(
        _string(f"{where}[{number}]", item) for number, item in enumerate(_list(where, value))
    )


def _boolean(where: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _Malformed(where, "true or false", value)
    return value


def _mtu(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_MTU:
        raise _Malformed(where, "a number of bytes", value)
    return value


def _integer(digits: str) -> int | float:
    """Return the number; infinity for one too large to send (int refuses over 4300 digits)."""
    return int(digits) if len(digits) <= _LARGEST_NUMBER_DIGITS else float(digits)
