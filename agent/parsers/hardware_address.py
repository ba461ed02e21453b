"""The hardware address of a link, as ip(8) prints it.

Source: ll_addr_n2a in iproute2's lib/ll_addr.c; link types as linux/if_arp.h names them. An
address has 6 bytes on Ethernet and 20 on InfiniBand; a tunnel's is its own end, an IP address.
"""

from __future__ import annotations

import ipaddress
import re

# ARPHRD_TUNNEL, ARPHRD_SIT, ARPHRD_IPGRE; ARPHRD_TUNNEL6, ARPHRD_IP6GRE.
_IPV4_TUNNELS, _IPV4_BYTES = frozenset({768, 776, 778}), 4
_IPV6_TUNNELS, _IPV6_BYTES = frozenset({769, 823}), 16
_BYTES = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2})*)?", re.IGNORECASE)
# INFINIBAND_ALEN of the kernel (linux/if_infiniband.h): a byte of flags, 3 of the queue pair's
# number, then the GID, of which the last 8 are the port's GUID (RFC 4391, section 9.1.1).
_INFINIBAND_BYTES, _GUID_BYTES = 20, 8


def format_hardware_address(link_type: int, address: bytes) -> str:
    """Return the address of a link of that type (ARPHRD_…) as text, "" for none."""
    if link_type in _IPV4_TUNNELS and len(address) == _IPV4_BYTES:
        return str(ipaddress.IPv4Address(address))
    if link_type in _IPV6_TUNNELS and len(address) == _IPV6_BYTES:
        return str(ipaddress.IPv6Address(address))
    return address.hex(":") if address else ""


def is_same_address(one: str, other: str) -> bool:
    """Tell whether two texts name the same hardware.

    Of an InfiniBand address (20 bytes) the GUID counts, its last 8 bytes, which plugins also report
    alone: flags and the number of the queue pair change each time that the link is made, and the
    subnet's prefix with the subnet manager. Case and separator (":" or "-") do not count.
    """
    first, second = _bytes(one), _bytes(other)
    if first is None or second is None:
        return one.strip().lower() == other.strip().lower()
    if _INFINIBAND_BYTES in (len(first), len(second)):
        lengths = {len(first), len(second)}
        if lengths <= {_INFINIBAND_BYTES, _GUID_BYTES}:
            return first[-_GUID_BYTES:] == second[-_GUID_BYTES:]
    return first == second


def _bytes(text: str) -> bytes | None:
    """Return the bytes of an address, None for a text that is none (an IP address, …)."""
    text = text.strip()
    if not _BYTES.fullmatch(text):
        return None
    return bytes.fromhex(text.replace(":", "").replace("-", ""))
