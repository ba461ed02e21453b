"""A PCI device as sysfs shows it. A value."""

from __future__ import annotations

from dataclasses import dataclass

NETWORK_CLASS = "0x02"
"""What the class of a network controller begins with, as sysfs writes it (PCI code 02)."""


@dataclass(frozen=True, slots=True)
class PciInfo:
    """A PCI device. What is "" or None is not shown for it.

    `driver` is the bound driver's name; `pf_address` and `vf_index` are those of a
    virtual function; `max_vfs` is the device's, or its physical function's; `class_code` is as
    sysfs writes it ("0x020000").
    """

    address: str
    driver: str = ""
    vendor_id: str = ""
    device_id: str = ""
    numa_node: int | None = None
    pf_address: str = ""
    vf_index: int | None = None
    iommu_group: int | None = None
    max_vfs: int | None = None
    class_code: str = ""

    @property
    def is_network(self) -> bool | None:
        """Return whether it is a network controller, None if its class is not known."""
        return self.class_code.startswith(NETWORK_CLASS) if self.class_code else None
