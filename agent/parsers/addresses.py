"""Hardware addresses, PCI addresses and names of links. Pure."""

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
_ADDRESS = re.compile(
    r"(?P<domain>[0-9a-fA-F]{4,8}):(?P<rest>[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])"
)
MAX_LINK_NAME_LENGTH = 15
"""Bytes: IFNAMSIZ less the final NUL, netdevice(7)."""


def format_hardware_address(link_type: int, address: bytes) -> str:
    """Return the address of a link of that type (ARPHRD_…) as text, "" for none."""
    if link_type in _IPV4_TUNNELS and len(address) == _IPV4_BYTES:
        return str(ipaddress.IPv4Address(address))
    if link_type in _IPV6_TUNNELS and len(address) == _IPV6_BYTES:
        return str(ipaddress.IPv6Address(address))
    return address.hex(":") if address else ""


def is_same_address(one: str, other: str) -> bool:
    """Return whether two texts name the same hardware.

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


def normalise_pci_address(text: str) -> str | None:
    """Return the address as sysfs spells it, None for what is no address.

    Lower case, and a domain of four digits unless it needs more. What comes back
    holds no slash, so that it can be a file's name; what a workload or an
    annotation says reaches no path otherwise.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    return f"{int(match['domain'], 16):04x}:{match['rest'].lower()}"


def is_link_name(name: str) -> bool:
    """Return whether a link may have the name; whether one has it only the kernel can say."""
    if not name or name in (".", "..") or len(name.encode()) > MAX_LINK_NAME_LENGTH:
        return False
    return not any(character in "/:" or character.isspace() for character in name)
