"""The interface name of a reported network: one rule for every call. Pure.

A network has the name that is reported. One that is reported without (the pod's own IPs, and some
plugins) has the name of the first live link that has one of its addresses.
"""

from __future__ import annotations

from collections.abc import Sequence

from netutil.agent.facts.drift import shared_ips
from netutil.agent.facts.links import Link
from netutil.agent.parsers.network_status import NetworkStatus


def link_of(network: NetworkStatus, links: Sequence[Link]) -> Link | None:
    """Return the live link of a reported network, None if there is none."""
    for link in links:
        if network.interface:
            if link.name == network.interface:
                return link
        elif shared_ips(network, link):
            return link
    return None


def interface_name(network: NetworkStatus, link: Link | None) -> str:
    """Return the name, "" if neither the report nor the network's link says it."""
    return network.interface or (link.name if link else "")
