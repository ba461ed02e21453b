"""Parses the annotation `k8s.v1.cni.cncf.io/network-status`. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from netutil.agent.errors import FailedPrecondition, Reason

T = TypeVar("T")
_MAX_DEPTH = 20
"""Levels of lists and objects. The standards need 5; protobuf readers give up at about 30."""
_MAX_NUMBER_DIGITS = 300
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")
_MAX_MTU = 2**32 - 1
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


class Malformed(Exception):
    """A value is not what the specification says; `where` is its path in the annotation."""

    def __init__(self, where: str, expected: str, found: object) -> None:
        shown = json.dumps(found, ensure_ascii=True)
        super().__init__(f"{where} must be {expected}, not {shown[:60]}")


def is_set(text: str) -> bool:
    """Return whether an annotation says anything: not if it is blank, or JSON's null.

    Multus clears network-status so on a pod's teardown, and others make it so before they first
    write it. An empty list, in contrast, is one.
    """
    return text.strip() not in ("", "null")


def parse_annotation(
    text: str,
    convert: Callable[[object], T],
    *,
    read: str,
    subject: str = "The pod's network status",
) -> T:
    """Return what `convert` makes of the document.

    Raises `FailedPrecondition` that says where the text breaks. `read` names the annotation and the
    pod, for that error; `subject` begins its sentence.
    """
    try:
        document = json.loads(text, parse_int=_integer)
        _ensure_representable("", document, 1)
        return convert(document)
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = f"it is nested more than {_MAX_DEPTH} levels deep"
    except Malformed as error:
        problem = str(error)
    raise FailedPrecondition(
        Reason.NETWORK_STATUS_MALFORMED,
        f"{subject} cannot be used: {problem}.",
        read=read,
        advice="The annotation is written by the CNI meta-plugin (Multus, OVN-Kubernetes) or a"
        " plugin; fix it there.",
    )


def _ensure_representable(where: str, value: object, level: int) -> None:
    """Raise `Malformed` for what Python's JSON lets pass and an answer cannot carry."""
    here = where or "the annotation"
    if isinstance(value, str):
        _ensure_text(here, value)
    elif isinstance(value, int | float):
        if not math.isfinite(value):
            raise Malformed(here, "a finite number", value)
    elif isinstance(value, list | dict):
        if level > _MAX_DEPTH:
            raise Malformed(here, f"at most {_MAX_DEPTH} levels deep", value)
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in entries:
            if isinstance(key, str):
                _ensure_text(f"a key of {here}", key)
            _ensure_representable(where + _step(key), item, level + 1)


def _ensure_text(where: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Malformed(where, "text without a lone surrogate", text)


def _step(key: int | str) -> str:
    """Return a key as part of a path; the key is not trusted."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key)[:60]}]"


def take(
    found: dict[str, Any], where: str, key: str, convert: Callable[[str, object], T], absent: T
) -> T:
    """Remove a key and return its value; null counts as absent, as in Go's encoding/json."""
    value = found.pop(key, None)
    return absent if value is None else convert(f"{where}.{key}", value)


def an_object(where: str, value: object) -> dict[str, Any]:
    """Return the value, or raise `Malformed` for what is no object."""
    if not isinstance(value, dict):
        raise Malformed(where, "an object", value)
    return value


def a_list(where: str, value: object) -> list[object]:
    """Return the value, or raise `Malformed` for what is no list."""
    if not isinstance(value, list):
        raise Malformed(where, "a list", value)
    return value


def a_string(where: str, value: object) -> str:
    """Return the value, or raise `Malformed` for what is no string."""
    if not isinstance(value, str):
        raise Malformed(where, "a string", value)
    return value


def strings(where: str, value: object) -> tuple[str, ...]:
    """Return the items, or raise `Malformed` for what is no list of strings."""
    return tuple(
        a_string(f"{where}[{number}]", item) for number, item in enumerate(a_list(where, value))
    )


def a_boolean(where: str, value: object) -> bool:
    """Return the value, or raise `Malformed` for what is neither true nor false."""
    if not isinstance(value, bool):
        raise Malformed(where, "true or false", value)
    return value


def _integer(digits: str) -> int | float:
    """Return the number; infinity for one too large to send (int refuses over 4300 digits)."""
    return int(digits) if len(digits) <= _MAX_NUMBER_DIGITS else float(digits)


@dataclass(frozen=True, slots=True)
class DNS:
    """The DNS settings that the network's plugin returned."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict)


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
    """One network attachment of a pod.

    `device_info_annotation` names the annotation that the device-info was read from, if it is
    another one than the rest.
    """

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
    device_info_annotation: str = ""


def parse_network_status(text: str, *, read: str) -> tuple[NetworkStatus, ...]:
    """Return the attachments in the annotation's order.

    Raises `FailedPrecondition` that says where the text breaks the specification.
    `read` names the annotation and the pod, for that error.
    """
    return parse_annotation(text, _networks, read=read)


def _networks(document: object) -> tuple[NetworkStatus, ...]:
    return tuple(
        _network(f"[{number}]", an_object(f"[{number}]", item))
        for number, item in enumerate(a_list("the annotation", document))
    )


def _network(where: str, found: dict[str, Any]) -> NetworkStatus:
    rest = dict(found)
    return NetworkStatus(
        name=take(rest, where, "name", a_string, ""),
        interface=take(rest, where, "interface", a_string, ""),
        mac=take(rest, where, "mac", a_string, ""),
        ips=take(rest, where, "ips", strings, ()),
        default=take(rest, where, "default", a_boolean, False),
        mtu=take(rest, where, "mtu", _mtu, None),
        gateway=take(rest, where, "gateway", strings, ()),
        dns=take(rest, where, "dns", _dns, None),
        device_info=take(rest, where, "device-info", _device_info, None),
        extensions=rest,
    )


def _dns(where: str, value: object) -> DNS:
    rest = dict(an_object(where, value))
    return DNS(
        nameservers=take(rest, where, "nameservers", strings, ()),
        domain=take(rest, where, "domain", a_string, ""),
        search=take(rest, where, "search", strings, ()),
        options=take(rest, where, "options", strings, ()),
        extensions=rest,
    )


def _device_info(where: str, value: object) -> DeviceInfo:
    rest = dict(an_object(where, value))
    devices = {
        kind: _device(f"{where}.{kind}", rest.pop(kind), names)
        for kind, names in DEVICE_FIELDS.items()
        if rest.get(kind) is not None
    }
    return DeviceInfo(
        type=take(rest, where, "type", a_string, ""),
        version=take(rest, where, "version", a_string, ""),
        devices=devices,
        extensions=rest,
    )


def _device(where: str, value: object, names: tuple[str, ...]) -> Device:
    rest = dict(an_object(where, value))
    fields = {name: take(rest, where, name, a_string, "") for name in names}
    return Device(fields, rest)


def _mtu(where: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_MTU:
        raise Malformed(where, "a number of bytes", value)
    return value
