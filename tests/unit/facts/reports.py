"""Reports of a plugin and links of a kernel, for the tests of their merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from netutil.agent.facts.links import Address, Link
from netutil.agent.facts.network import NETWORK_STATUS, Networks, read_networks
from netutil.agent.parsers.pci import PciInfo

Lookup = Callable[[str], PciInfo | None]


def reported(*networks: dict[str, Any]) -> Networks:
    return read_networks({NETWORK_STATUS: json.dumps(networks)}, (), pod="shop/web")


def network(interface: str, **fields: Any) -> dict[str, Any]:
    return {"name": "shop/fast", "interface": interface} | fields


def pci_info(address: str, **fields: str) -> dict[str, Any]:
    return {
        "device-info": {
            "type": "pci",
            "version": "1.1.0",
            "pci": {"pci-address": address, **fields},
        }
    }


def link(index: int, name: str, device: str = "", *ips: str) -> Link:
    return Link(
        index=index,
        name=name,
        mac="02:00:00:00:00:01",
        mtu=1500,
        addresses=tuple(Address(ip, "global") for ip in ips),
        parent_device_bus="pci" if device else "",
        parent_device=device,
    )
