"""Parses annotations of the Userspace CNI plugin, which writes no device-info.

Source: its pkg/types (ConfigurationData) and pkg/annotations. What it hands to the container:

    userspace/configuration-data: [{"containerId": "5d1f…", "ifName": "net1", "name": "ovs-net",
      "config": {"engine": "ovs-dpdk", "iftype": "vhostuser", "netType": "interface", "memif": {},
        "vhost": {"mode": "client", "socketfile": "5d1f0c3e9a2b-net1"}, "bridge": {}},
      "ipResult": {"interfaces": [{"name": "net1", "sandbox": "/proc/24281/ns/net"}], "dns": {}}}]
    userspace/mapped-dir: /var/lib/cni/usrspcni/

The socket is in that directory inside the container.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from netutil.agent.parsers.network_status import (
    Device,
    DeviceInfo,
    a_list,
    a_string,
    an_object,
    parse_annotation,
    take,
)

CONFIGURATION_DATA = "userspace/configuration-data"
MAPPED_DIRECTORY = "userspace/mapped-dir"
# iftype of the plugin to the type of the device-info, and the key of its settings.
_TYPES = {"vhostuser": ("vhost-user", "vhost"), "memif": ("memif", "memif")}
_NOTHING: dict[str, Any] = {}
_FIELDS = {"vhost-user": ("mode",), "memif": ("role", "mode")}


@dataclass(frozen=True, slots=True)
class UserspaceInterface:
    """An interface of the plugin, as a device-info would say it; a path that is not known is ""."""

    interface: str
    network: str
    device_info: DeviceInfo


def parse_userspace(text: str, directory: str, *, read: str) -> tuple[UserspaceInterface, ...]:
    """Return the interfaces of the annotation; of one name the last, which is the newest.

    `directory` is the text of the other annotation. Interfaces of other types than vhost-user
    and memif are left out. Raises `FailedPrecondition` for what the plugin does not write; `read`
    names the annotation and the pod, for that error.
    """

    def convert(document: object) -> tuple[UserspaceInterface, ...]:
        found = {}
        for number, item in enumerate(a_list("the annotation", document)):
            where = f"[{number}]"
            one = _interface(where, an_object(where, item), directory)
            if one is not None:
                found[one.interface] = one
        return tuple(found.values())

    subject = f"The pod's annotation {CONFIGURATION_DATA}"
    return parse_annotation(text, convert, read=read, subject=subject)


def _interface(where: str, item: dict[str, Any], directory: str) -> UserspaceInterface | None:
    rest = dict(item)
    interface = take(rest, where, "ifName", a_string, "")
    network = take(rest, where, "name", a_string, "")
    config = dict(take(rest, where, "config", an_object, _NOTHING))
    where = f"{where}.config"
    kind, key = _TYPES.get(take(config, where, "iftype", a_string, ""), ("", ""))
    if not kind:
        return None
    settings = dict(take(config, where, key, an_object, _NOTHING))
    where = f"{where}.{key}"
    fields = {name: take(settings, where, name, a_string, "") for name in _FIELDS[kind]}
    socket = take(settings, where, "socketfile", a_string, "")
    fields["path"] = posixpath.join(directory, socket) if directory and socket else ""
    return UserspaceInterface(interface, network, DeviceInfo(kind, "", {kind: Device(fields)}))
