"""The network-status annotation of a pod.

Sources: Kubernetes Network Custom Resource Definition De-facto Standard 1.3,
section 4.1 (network status), and Device Information Specification 1.1.0, both
of the Network Plumbing Working Group. Keys that the specifications do not name
are preserved as they stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netutil.agent.parsers.annotation import (
    Malformed,
    a_boolean,
    a_list,
    a_string,
    an_object,
    parse_annotation,
    strings,
    take,
)

_LARGEST_MTU = 2**32 - 1


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


def parse_network_status(text: str, *, read: str) -> tuple[NetworkStatus, ...]:
    """Return the attachments in the annotation's order.

    Raises `Inconsistent` that says where the text breaks the specification.
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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST_MTU:
        raise Malformed(where, "a number of bytes", value)
    return value
