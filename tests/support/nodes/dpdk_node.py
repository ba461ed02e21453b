"""A pod for DPDK on a node with SR-IOV: the real agent, a /sys of files, PodResources served."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.fakes.podresources import KubeletDouble
from tests.support.lab.agent import LabAgent
from tests.support.lab.lab import Lab
from tests.support.lab.pod import LabContainer
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.sriov_node import PF, VFIO_VF, build_sriov_node

UID = "3f2b6a9e-7c1d-4e0a-9b7e-2f5d8c6b1a00"
VARIABLE = "PCIDEVICE_INTEL_COM_N3"
GIBIBYTE = 2**30
ENTER = (
    'mkdir -p "$0/sys/fs/cgroup" && mount --rbind /sys/fs/cgroup "$0/sys/fs/cgroup" && exec "$@"'
)
"""The agent takes the host's cgroups from the mounts below --host-root."""
FURNISH = """\
mount -t tmpfs none /dev
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/urandom c 1 9
mkdir /dev/hugepages /dev/vfio
touch /dev/vfio/vfio "/dev/vfio/$0"
mount -t hugetlbfs -o pagesize=1G none /dev/hugepages
mount -t tmpfs none /run
mkdir /run/memif
"""
"""A container's own /dev and /run, with what device plugins and volumes put there."""
GROUP = 32  # of VFIO_VF in the node's /sys


@dataclass
class DpdkNode:
    """`app` is the pod's container; `kubelet` serves PodResources, with switches."""

    lab: Lab
    agent: LabAgent
    app: LabContainer
    kubelet: KubeletDouble


def network_status() -> str:
    """As Multus writes it of an SR-IOV network and a memif network."""
    pci = {"pci-address": VFIO_VF, "pf-pci-address": PF}
    memif = {"role": "slave", "path": "/run/memif/n6.sock", "mode": "ethernet"}
    return json.dumps(
        [
            {"name": "cbr0", "interface": "eth0", "default": True},
            {
                "name": "telco/n3",
                "interface": "net1",
                "mac": "02:09:c0:a8:03:05",
                "ips": ["192.0.2.5/24"],
                "device-info": {"type": "pci", "version": "1.1.0", "pci": pci},
            },
            {
                "name": "telco/n6",
                "interface": "net2",
                "device-info": {"type": "memif", "version": "1.1.0", "memif": memif},
            },
        ]
    )


def allocated() -> v1.PodResources:
    """Return the allocations of the device plugin, the CPU manager and the memory manager."""
    near = v1.TopologyInfo(nodes=[v1.NUMANode(ID=0)])
    container = v1.ContainerResources(
        name="app",
        devices=[
            v1.ContainerDevices(resource_name="intel.com/n3", device_ids=[VFIO_VF], topology=near)
        ],
        cpu_ids=[1],
        memory=[v1.ContainerMemory(memory_type="hugepages-1Gi", size=GIBIBYTE, topology=near)],
    )
    return v1.PodResources(name="upf", namespace="telco", containers=[container])


@contextmanager
def dpdk_node() -> Iterator[DpdkNode]:
    """The node, with its pod `telco/upf`."""
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        pod = lab.pod(
            "upf",
            namespace="telco",
            uid=UID,
            qos="guaranteed",
            annotations={NETWORK_STATUS: network_status()},
        )
        env = {"PATH": "/usr/bin:/bin", "HOSTNAME": "upf", VARIABLE: VFIO_VF}
        app = pod.container("app", env=env, cpus="1", quota=1.0)
        furnished = app.run(["sh", "-e", "-c", FURNISH, str(GROUP)])
        assert furnished.returncode == 0, furnished.stderr
        amounts = {"cpu": "1", "memory": "1Gi", "hugepages-1Gi": "1Gi", "intel.com/n3": "1"}
        app.resources = {"requests": amounts, "limits": amounts}
        root = build_sriov_node(lab.directory / "node")
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, root)
        agent = lab.agent(
            f"--host-root={root}",
            f"--pod-resources={kubelet.path}",
            around=enter,
        )
        yield DpdkNode(lab, agent, app, kubelet)


@contextmanager
def podresources(path: Path) -> Iterator[KubeletDouble]:
    """Serve the API on a loop of its own, while the tests wait for processes."""
    started: list[KubeletDouble] = []
    ready, end = threading.Event(), threading.Event()

    async def serve() -> None:
        double = KubeletDouble(path)
        double.pods = [allocated()]
        async with double.serving():
            started.append(double)
            ready.set()
            await asyncio.to_thread(end.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(30)
        yield started[0]
    finally:
        end.set()
        thread.join()
