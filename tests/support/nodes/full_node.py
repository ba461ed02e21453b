"""A node with as many pods as a kubelet takes: real cgroups, a kubelet that counts, two NUMA nodes.

Every pod has containers of its own, which sleep; each kind of pod that a map draws is among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.fakes.kubelet import KubeletDouble, pods, serving
from tests.support.fakes.podresources import KubeletDouble as PodResourcesDouble
from tests.support.lab.agent import LabAgent
from tests.support.lab.lab import Lab
from tests.support.lab.pod import LabPod
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.dpdk_node import ENTER, podresources
from tests.support.nodes.sriov_node import PF, VFIO_VF, VFS, build_sriov_node

_RESOURCE = "intel.com/n3"
_OWN_CPU = 1
_NAMES = ("session-manager-backend", "node-exporter", "coredns", "cart", "istio-ingressgateway")
_NAMESPACES = ("shop", "kube-system", "monitoring", "core-5g")


@dataclass
class FullNode:
    """The lab with its agent; `kubelet` and `resources` are what the agent asks."""

    lab: Lab
    agent: LabAgent
    kubelet: KubeletDouble
    resources: PodResourcesDouble

    @property
    def pod_names(self) -> list[str]:
        """Every pod, by namespace and name."""
        names = sorted((pod.namespace, pod.name) for pod in self.lab.pods)
        return [f"{namespace}/{name}" for namespace, name in names]


@contextmanager
def full_node(number: int, networks: int) -> Iterator[FullNode]:
    """A node with that many pods, so many of them on a network of their own.

    Its own network makes a pod dear: a third of a second, else a tenth.
    """
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as resources:
        made = [_first(lab), *(_ordinary(lab, n, n >= networks) for n in range(1, number))]
        resources.pods = list(map(_allocated, made))
        double = KubeletDouble(pods(*lab.pod_list()["items"]))
        root = build_sriov_node(lab.directory / "node")
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, root)
        with serving(double) as kubelet:
            agent = lab.agent(
                f"--kubelet-url={kubelet.url}",
                f"--host-root={root}",
                f"--pod-resources={resources.path}",
                pod_source="kubelet",
                around=enter,
            )
            yield FullNode(lab, agent, kubelet, resources)


def _first(lab: Lab) -> LabPod:
    """A pod with a CPU and a virtual function of its own."""
    pod = lab.pod("upf", namespace="core-5g", qos="guaranteed", annotations=_networks(VFIO_VF))
    app = pod.container("user-plane", cpus=str(_OWN_CPU))
    amounts: dict[str, Any] = {"cpu": "1", "memory": "1Gi", _RESOURCE: "1"}
    app.resources = {"requests": amounts, "limits": amounts}
    return pod


def _ordinary(lab: Lab, number: int, host_network: bool) -> LabPod:
    """A pod in a pool, the first with a function, every third with a second container."""
    name = f"{_NAMES[number % len(_NAMES)]}-5dd5756b68-{number:05d}"
    function = VFS[0] if number == 1 else ""
    pod = lab.pod(
        name,
        namespace=_NAMESPACES[number % len(_NAMESPACES)],
        host_network=host_network,
        static=number % 13 == 0,
        annotations=None if host_network else _networks(function),
        labels={"app": _NAMES[number % len(_NAMES)]},
    )
    pod.container("app", cpus="0")
    if number % 3 == 0:
        pod.container("istio-proxy", cpus="0-1")
    return pod


def _networks(function: str) -> dict[str, str]:
    """As Multus writes it of the pod's own network, and of a PCI function if there is one."""
    reported: list[dict[str, Any]] = [{"name": "cbr0", "interface": "eth0", "default": True}]
    if function:
        pci = {"pci-address": function, "pf-pci-address": PF}
        device = {"type": "pci", "version": "1.1.0", "pci": pci}
        reported.append({"name": "telco/n3", "interface": "net1", "device-info": device})
    return {NETWORK_STATUS: json.dumps(reported)}


def _allocated(pod: LabPod) -> v1.PodResources:
    """Return the kubelet's allocations: none for most containers."""
    containers = [v1.ContainerResources(name=one.name) for one in pod.containers]
    if pod.name == "upf":
        device = v1.ContainerDevices(resource_name=_RESOURCE, device_ids=[VFIO_VF])
        own = v1.ContainerResources(name="user-plane", devices=[device], cpu_ids=[_OWN_CPU])
        containers = [own]
    return v1.PodResources(name=pod.name, namespace=pod.namespace, containers=containers)
