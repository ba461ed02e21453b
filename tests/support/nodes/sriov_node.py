"""The /sys of a node with an SR-IOV network card and two NUMA nodes, as files in a directory.

CPUs     0-3 on node 0, 4-7 on node 1, two to a core; 2-3 and 6-7 are isolated, 6-7
         without a tick; CPU 7 is offline
PF       0000:3b:00.0 on node 0, driver ice, four of eight virtual functions
VFs      0000:3b:01.0 and .1: driver iavf; .2: vfio-pci; .3: no driver
other    0000:af:00.0 on node 1, no SR-IOV; 0000:00:1f.0, of no NUMA node and no network card;
         0000:b0:00.0 on node 1, a processing accelerator on vfio-pci
pages    2 MiB and 1 GiB on each node
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PF = "0000:3b:00.0"
VFS = ("0000:3b:01.0", "0000:3b:01.1", "0000:3b:01.2", "0000:3b:01.3")
VF, SECOND_VF, VFIO_VF, UNBOUND_VF = VFS
PLAIN = "0000:af:00.0"
NO_NODE = "0000:00:1f.0"
ACCELERATOR = "0000:b0:00.0"
OFFLINE_CPU = 7


@dataclass(frozen=True, slots=True)
class Page:
    """Pages of one size on one NUMA node."""

    kilobytes: int
    node: int
    total: int
    free: int
    surplus: int = 0


PAGES = (
    Page(2048, 0, 512, 500),
    Page(2048, 1, 256, 256, surplus=2),
    Page(1048576, 0, 4, 1),
    Page(1048576, 1, 0, 0),
)
RESERVED = {2048: 10, 1048576: 1}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="ascii")


def build_sriov_node(root: Path) -> str:
    """Write the tree below `root` and return it as --host-root takes it."""
    _build_pci(root / "sys")
    _build_cpus(root / "sys/devices/system")
    _build_pages(root / "sys")
    return str(root)


def _build_pci(sys: Path) -> None:
    _device(sys, PF, "ice", "0x1592", node=0, group=20)
    for number, address in enumerate(VFS):
        driver = ("iavf", "iavf", "vfio-pci", "")[number]
        _device(sys, address, driver, "0x1889", node=0, group=30 + number)
        (sys / f"bus/pci/devices/{address}/physfn").symlink_to(f"../{PF}")
        (sys / f"bus/pci/devices/{PF}/virtfn{number}").symlink_to(f"../{address}")
    write(sys / f"bus/pci/devices/{PF}/sriov_totalvfs", "8")
    write(sys / f"bus/pci/devices/{PF}/sriov_numvfs", "4")
    _device(sys, PLAIN, "mlx5_core", "0x1017", node=1, group=40, vendor="0x15b3")
    _device(sys, NO_NODE, "", "0xa323", node=-1, group=None, kind="0x0c8000")
    _device(sys, ACCELERATOR, "vfio-pci", "0x0d5d", node=1, group=41, kind="0x120001")
    (sys / f"bus/pci/devices/{PF}/net/ens1f0").mkdir(parents=True)


def _device(
    sys: Path,
    address: str,
    driver: str,
    device: str,
    *,
    node: int,
    group: int | None,
    vendor: str = "0x8086",
    kind: str = "0x020000",
) -> None:
    bus = address[:7]
    real = sys / f"devices/pci{bus}/{address}"
    write(real / "vendor", vendor)
    write(real / "device", device)
    write(real / "class", kind)
    write(real / "numa_node", str(node))
    if driver:
        (sys / f"bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
        (real / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
    if group is not None:
        (sys / f"kernel/iommu_groups/{group}").mkdir(parents=True)
        (real / "iommu_group").symlink_to(f"../../../kernel/iommu_groups/{group}")
    devices = sys / "bus/pci/devices"
    devices.mkdir(parents=True, exist_ok=True)
    (devices / address).symlink_to(f"../../../devices/pci{bus}/{address}")


def _build_cpus(system: Path) -> None:
    write(system / "cpu/online", "0-6")
    write(system / "cpu/offline", "7")
    write(system / "cpu/isolated", "2-3,6-7")
    write(system / "cpu/nohz_full", "6-7")
    (system / "cpu/cpufreq").mkdir()
    for number in range(8):
        own, node = system / f"cpu/cpu{number}", number // 4
        own.mkdir()
        (own / f"node{node}").symlink_to(f"../../node/node{node}")
        if number == OFFLINE_CPU:
            continue
        pair = number // 2 * 2
        write(own / "topology/core_id", str(number % 4 // 2))
        write(own / "topology/physical_package_id", str(node))
        siblings = "6" if number == OFFLINE_CPU - 1 else f"{pair}-{pair + 1}"
        write(own / "topology/core_cpus_list", siblings)
        write(own / "topology/thread_siblings_list", siblings)
    write(system / "node/node0/cpulist", "0-3")
    write(system / "node/node1/cpulist", "4-6")
    write(system / "node/online", "0-1")


def _build_pages(sys: Path) -> None:
    for kilobytes, reserved in RESERVED.items():
        pages = [page for page in PAGES if page.kilobytes == kilobytes]
        pool = sys / f"kernel/mm/hugepages/hugepages-{kilobytes}kB"
        for name, amount in (
            ("nr", sum(page.total for page in pages)),
            ("free", sum(page.free for page in pages)),
            ("resv", reserved),
            ("surplus", sum(page.surplus for page in pages)),
        ):
            write(pool / f"{name}_hugepages", str(amount))
        for page in pages:
            part = sys / f"devices/system/node/node{page.node}/hugepages/{pool.name}"
            for name, amount in (
                ("nr", page.total),
                ("free", page.free),
                ("surplus", page.surplus),
            ):
                write(part / f"{name}_hugepages", str(amount))
