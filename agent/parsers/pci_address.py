"""The address of a PCI function, as sysfs spells it: "0000:3b:02.1".

Source: the kernel's Documentation/PCI/sysfs-pci.rst (domain, bus, device, function).
"""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"(?P<domain>[0-9a-fA-F]{4,8}):(?P<rest>[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])"
)


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
