"""A node as `netutil node map` draws it: two NUMA nodes of 32 cores with SMT, and its pods.

CPU n and n + 64 are siblings; CPUs 0-31 and 64-95 are on NUMA node 0. Each NUMA node has
a physical function with 64 virtual functions. Every fifth pod has CPUs of its own, every
fourth a virtual function; the rest run on the pool.
"""

from __future__ import annotations

from datetime import UTC, datetime

from netutil.client.models.core import NodeCPU
from netutil.client.models.devices import PCIInfo
from netutil.client.models.node import NetworkDevice
from netutil.client.nodemap.model import (
    AllottedDevice,
    NodePicture,
    PicturedContainer,
    PicturedInterface,
    PicturedPod,
)

CORES = 64
PODS = 110
PFS = ("0000:3b:00.0", "0000:af:00.0")
SPREAD, SPLIT, SPLIT_TOO, FAR = 1, 2, 3, 4
"""Pods whose CPUs are on two NUMA nodes, two with a core in common, one with a far device."""


def numa_node_of(cpu: int) -> int:
    return cpu % CORES // 32


def cpu(number: int) -> NodeCPU:
    core = number % CORES
    return NodeCPU(
        id=number,
        core=core % 32,
        socket=core // 32,
        numa_node=numa_node_of(number),
        siblings=(core, core + CORES),
        online=True,
        isolated=core % 32 >= 24,
        nohz_full=False,
        exclusive=None,
    )


def device(pf: int, vf: int | None) -> NetworkDevice:
    address = PFS[pf] if vf is None else vf_address(pf, vf)
    info = PCIInfo(
        address=address,
        driver="ice" if vf is None else "vfio-pci",
        vendor_id="0x8086",
        device_id="0x1592",
        numa_node=pf,
        pf_address="" if vf is None else PFS[pf],
        vf_index=vf,
        iommu_group=None,
        max_vfs=64,
    )
    return NetworkDevice(info, (f"ens{pf}f0",) if vf is None else ())


def vf_address(pf: int, vf: int) -> str:
    return f"{PFS[pf][:8]}{1 + vf // 8:02x}.{vf % 8}"


def big_picture(pods: int = PODS) -> NodePicture:
    own = {
        SPREAD: (2, 66, 40, 104),
        SPLIT: (5,),
        SPLIT_TOO: (69,),
        FAR: (41, 105),
        **{number: ((n := 6 + number // 5), n + CORES) for number in range(5, pods + 1, 5)},
    }
    taken = {cpu for number, cpus in own.items() if number <= pods for cpu in cpus}
    pool = tuple(n for n in range(2 * CORES) if n not in taken)
    return NodePicture(
        node_name="worker-3.example.com",
        kernel="6.1.0-28-amd64",
        observed_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        cpus=tuple(map(cpu, range(2 * CORES))),
        devices=tuple(device(pf, vf) for pf in range(2) for vf in (None, *range(64))),
        pods=tuple(
            pod(number, own.get(number), pool, vf=number // 4 if number % 4 == 0 else None)
            for number in range(1, pods + 1)
        ),
        problems=(),
    )


def pod(
    number: int, own: tuple[int, ...] | None, pool: tuple[int, ...], *, vf: int | None
) -> PicturedPod:
    app = PicturedContainer(
        name="user-plane" if own else "app",
        state="running",
        cpus=own or pool,
        exclusive=own is not None,
        devices=() if vf is None else (AllottedDevice("intel.com/sriov", vf_address(0, vf), (0,)),),
    )
    side = PicturedContainer("istio-proxy", "running", pool, False, ())
    interfaces = [PicturedInterface("eth0", "host", "", "", None)]
    if vf is not None:
        interfaces.append(PicturedInterface("net1", "sr-iov", vf_address(0, vf), PFS[0], 0))
    kinds = ("upf-dataplane", "prometheus-node-exporter", "coredns", "session-manager-backend")
    return PicturedPod(
        namespace=("core-5g", "kube-system", "shop")[number % 3],
        name=f"{kinds[number % 4]}-5dd5756b68-{number:05d}",
        host_network=number % 11 == 0,
        containers=(app, side) if number % 3 == 0 else (app,),
        interfaces=tuple(interfaces),
    )
