"""Compares a reported interface with the live link. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec
from netutil.agent.facts.links import Link
from netutil.agent.parsers.addresses import is_same_address, normalise_pci_address
from netutil.agent.parsers.network_status import NetworkStatus
from netutil.agent.parsers.pci import PciInfo

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Drift(msgspec.Struct, frozen=True):
    """One disagreement; "" in `found` is nothing.

    `field` is "link", "mac", "mtu", "ips", "gateway", "pci-address" or "pf-pci-address"; of what a
    claim's driver reports "claim-interface-name", "claim-hardware-address", "claim-ips" or
    "claim-pci-address".
    """

    field: str
    reported: str
    found: str = ""


def link_drift(network: NetworkStatus | None, link: Link | None) -> Iterator[Drift]:
    """Yield what a reported network and its live link disagree on; all is missing with the link.

    What was not reported cannot disagree. Of IPs only the addresses are
    compared: few plugins report a prefix length, and some one of their own. Of an InfiniBand
    address the GUID is compared. Gateways are those of the default routes of the main table and of
    the tables that a rule leads to (source-based routing); what is no address ("<nil>", as Multus
    writes a default route without one) is passed over.
    """
    if network is None:
        return
    if link is None:
        if network.interface:
            yield Drift("link", network.interface)
        elif network.ips:
            yield Drift("ips", ", ".join(network.ips))
        return
    if network.mac and not is_same_address(network.mac, link.mac):
        yield Drift("mac", network.mac, link.mac)
    if network.mtu and network.mtu != link.mtu:
        yield Drift("mtu", str(network.mtu), str(link.mtu))
    there = _ips_of(link)
    missing = [ip for ip in network.ips if _ip(ip) not in there]
    if missing:
        yield Drift("ips", ", ".join(missing), ", ".join(one.address for one in link.addresses))
    routed = {_ip(route.gateway) for route in link.default_routes}
    lost = [one for one in network.gateway if (ip := _ip(one)) is not None and ip not in routed]
    if lost:
        found = ", ".join(route.gateway for route in link.default_routes if route.gateway)
        yield Drift("gateway", ", ".join(lost), found)


def pci_drift(
    reported: str, own: str, pci: PciInfo | None, field: str = "pci-address"
) -> Iterator[Drift]:
    """Yield whether a PCI address is not the link's own, or not the host's.

    `reported` is as written, `own` what the kernel names for the link ("" for
    none), `pci` what the host has of it.
    """
    if own and own != normalise_pci_address(reported):
        yield Drift(field, reported, own)
    elif reported and pci is None:
        yield Drift(field, reported)


def pf_drift(reported: str, pci: PciInfo | None) -> Iterator[Drift]:
    """Yield whether a device's physical function is not the reported one, as written.

    A device that is reported as its own is none: so plugins write subfunctions.
    """
    if reported and pci is not None:
        address = normalise_pci_address(reported)
        if address not in (pci.pf_address, pci.address):
            yield Drift("pf-pci-address", reported, pci.pf_address)


def shared_ips(network: NetworkStatus, link: Link) -> bool:
    """Return whether a link has one of the reported addresses."""
    return not _ips_of(link).isdisjoint(ip for one in network.ips if (ip := _ip(one)) is not None)


def has_address(link: Link, reported: str) -> bool:
    """Return whether a link has a reported address, with or without its prefix length."""
    return _ip(reported) in _ips_of(link)


def _ips_of(link: Link) -> set[IP | None]:
    return {ip for one in link.addresses if (ip := _ip(one.address)) is not None}


def _ip(text: str) -> IP | None:
    """Return an address with or without prefix length and zone, None for what is none."""
    try:
        return ipaddress.ip_address(text.partition("/")[0].partition("%")[0].strip())
    except ValueError:
        return None
