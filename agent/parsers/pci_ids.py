"""PCI IDs of virtual functions only, and of physical functions only.

Sources: the id tables of the kernel's drivers in drivers/net/ethernet (intel/igbvf, ixgbevf, iavf,
idpf; mellanox/mlx4/main.c `MLX_VF`, mlx5/core/main.c `MLX5_PCI_DEV_IS_VF`; broadcom/bnxt and bnx2x;
amazon/ena/ena_pci_id_tbl.h; microsoft/mana) and in drivers/crypto/intel/qat; for the other vendors
the names in pci.ids 2023.04.10. An id that neither list has proves nothing.

A virtual function inside a virtual machine has no `physfn` in sysfs, so the ids are all that
there is. The ids are an inference: an id says what its vendor sells under it.
"""

from __future__ import annotations

_VIRTUAL = {
    "0x8086": (
        "10ca 152d 1520 152f"  # 82576, I350 (igbvf)
        " 10ed 152e 1515 1530 1564 1565 15a8 15a9 15b4 15c5"  # 82599, X540, X550, … (ixgbevf)
        " 154c 1571 1889 37cd 37d9 0dd5 145c"  # 700 and 800 series (iavf), idpf
        " 0442 0443 18a1 18ef 19e3 37c9"  # QuickAssist
    ),
    "0x15b3": "1002 1004 1012 1014 1016 1018 101a 101c 101e a2d3",
    "0x14e4": (
        "1606 1608 1609 16bd 16c1 16c2 16c3 16c4 16c5 16cb 16d3 16dc 16e1 16e5 16e6"
        " 1806 1807 1808 1809 1819 181b d800"  # NetXtreme-C, -E, -S (bnxt)
        " 163f 166f 16a9 16ad 16af"  # NetXtreme II (bnx2x)
    ),
    "0x1d0f": "ec20 ec21",
    "0x1414": "00ba",
    "0x1137": "0071",
    "0x1077": "1664 8090 8430",
    "0x10df": "0728 e208",
    "0x177d": "9712 a034 a064 a0f3 a0f7 a0f8 a0fe",
    "0x1924": "1803 1813 1903 1923 1a03 1b03",
    "0x19e5": "375e 375f 379e 379f a22e a22f",
    "0x1dd8": "1003 100b 100d",
}
_PHYSICAL = {
    "0x15b3": (
        "1003 1007 1011 1013 1015 1017 1019 101b 101d 101f 1021 1023 a2d2 a2d6 a2dc"  # mlx4, mlx5
    ),
    "0x1d0f": "0ec2 1ec2",
    "0x1414": "00b9",
}
_VIRTUAL_IDS = frozenset(
    (vendor, f"0x{device}") for vendor, devices in _VIRTUAL.items() for device in devices.split()
)
_PHYSICAL_IDS = frozenset(
    (vendor, f"0x{device}") for vendor, devices in _PHYSICAL.items() for device in devices.split()
)
_VIRTUAL_ONLY_DRIVERS = frozenset(
    {"cxgb4vf", "i40evf", "iavf", "igbvf", "ixgbevf", "nicvf", "rvu_nicvf"}
)
"""Drivers of the kernel whose id tables hold virtual functions only."""


def is_virtual_function(vendor_id: str, device_id: str, driver: str) -> bool | None:
    """Return what the ids and the bound driver of a PCI device say, None where they say nothing.

    Ids are as sysfs writes them: "0x8086", "0x1889".
    """
    ids = (vendor_id, device_id)
    if ids in _VIRTUAL_IDS or driver in _VIRTUAL_ONLY_DRIVERS:
        return True
    return False if ids in _PHYSICAL_IDS else None
