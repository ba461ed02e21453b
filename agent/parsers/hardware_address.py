"""The hardware address of a link, as ip(8) prints it.

Source: ll_addr_n2a in iproute2's lib/ll_addr.c; link types as linux/if_arp.h names them. An
address has 6 bytes on Ethernet and 20 on InfiniBand; a tunnel's is its own end, an IP address.
"""

from __future__ import annotations

import ipaddress

# ARPHRD_TUNNEL, ARPHRD_SIT, ARPHRD_IPGRE; ARPHRD_TUNNEL6, ARPHRD_IP6GRE.
_IPV4_TUNNELS, _IPV4_BYTES = frozenset({768, 776, 778}), 4
_IPV6_TUNNELS, _IPV6_BYTES = frozenset({769, 823}), 16


def format_hardware_address(link_type: int, address: bytes) -> str:
    """Return the address of a link of that type (ARPHRD_…) as text, "" for none."""
    if link_type in _IPV4_TUNNELS and len(address) == _IPV4_BYTES:
        return str(ipaddress.IPv4Address(address))
    if link_type in _IPV6_TUNNELS and len(address) == _IPV6_BYTES:
        return str(ipaddress.IPv6Address(address))
    return address.hex(":") if address else ""
