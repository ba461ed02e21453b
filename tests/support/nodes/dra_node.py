"""A node with drivers of ResourceClaims: the real agent, files as drivers write them, a /sys.

Pod `shop/web` has two claims: `nic` of a template, for containers `app` (request vf) and `whole`
(all of it), and `gpu`, which pod `shop/train` shares. Its container `plain` refers to none. `app`
has a device of an extended resource as well. The pod has the UID that `claims_of_api` reserves
claims for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netutil.podresources.v1 import podresources_pb2 as v1

from tests.support.device_metadata import DRIVER, both, device, vf
from tests.support.fakes.claims_of_api import POD_UID
from tests.support.fakes.podresources import KubeletDouble
from tests.support.lab.agent import LabAgent
from tests.support.lab.lab import Lab
from tests.support.lab.pod import LabContainer, LabPod
from tests.support.nodes.dpdk_node import ENTER, podresources
from tests.support.nodes.dra_tree import DraTree
from tests.support.nodes.sriov_node import VF, VFIO_VF, build_sriov_node

GPU_DRIVER = "gpu.example.com"
NIC, GPU = "web-nic-x7k2p", "shared-gpu"
MAC = "02:00:00:00:00:05"
NETWORK = {"interfaceName": "net1", "ips": ["192.0.2.5/24"], "hardwareAddress": MAC}
PLUGIN_DEVICE = "fpga-0"
UID = "0b1c2d3e-0000-4000-8000-000000000001"
"""Of the claims in files, unless a test says another."""


@dataclass
class DraNode:
    lab: Lab
    agent: LabAgent
    kubelet: KubeletDouble
    tree: DraTree
    web: LabPod
    containers: dict[str, LabContainer]
    """Of pod `web` by name, and `train` of the other pod."""

    def write_nic(self, *devices: Any, **more: Any) -> Path:
        """Write the file of claim `nic`; without devices the VF that net1 is."""
        found = devices or (vf(VF, network=NETWORK),)
        body = both(*found, claim=NIC, pod_claim="nic", **more)
        return self.tree.write(body, claim=NIC, request=more.get("request", "vf"))

    def write_gpu(self, **more: Any) -> Path:
        attributes = {"model": {"string": "A"}, "memory": {"int": 80}}
        gpu = device("gpu-0", driver=GPU_DRIVER, attributes=attributes)
        body = both(gpu, claim=GPU, request="gpu", pod_claim=None, **more)
        return self.tree.write(body, claim=GPU, request="gpu", driver=GPU_DRIVER)


def resources_of(pod: str, containers: list[str]) -> v1.PodResources:
    """Return the answer of a kubelet of 1.34 to List and Get, with dynamic_resources."""
    nic, other = (
        v1.ClaimResource(
            cdi_devices=[
                v1.CDIDevice(name=f"k8s.example.com/vf=claim-vf-{number}"),
                v1.CDIDevice(name=f"{DRIVER}/metadata={UID}_vf"),
            ],
            driver_name=DRIVER,
            pool_name="node-1",
            device_name=address.replace(":", "-").replace(".", "-"),
        )
        for number, address in enumerate((VF, VFIO_VF))
    )
    gpu = v1.ClaimResource(driver_name=GPU_DRIVER, pool_name="node-1", device_name="gpu-0")
    claim = v1.DynamicResource(
        claim_name=NIC, claim_namespace="shop", claim_resources=[nic, other, gpu]
    )
    plugin = v1.ContainerDevices(
        resource_name="example.com/fpga", device_ids=[PLUGIN_DEVICE, "fpga-1"]
    )
    return v1.PodResources(
        name=pod,
        namespace="shop",
        containers=[
            v1.ContainerResources(
                name=name,
                dynamic_resources=[claim] * (name == "app"),
                devices=[plugin] * (name == "app"),
            )
            for name in containers
        ],
    )


def health(message: str | None = None) -> list[dict[str, Any]]:
    """allocatedResourcesStatus of `app`, as such a kubelet prints it."""
    nic: dict[str, Any] = {"resourceID": "k8s.example.com/vf=claim-vf-0", "health": "Unhealthy"}
    if message is not None:
        nic["message"] = message
    return [
        {"name": "claim:nic/vf", "resources": [nic]},
        {
            "name": "example.com/fpga",
            "resources": [{"resourceID": PLUGIN_DEVICE, "health": "Healthy"}],
        },
    ]


@contextmanager
def dra_node(*flags: str) -> Iterator[DraNode]:
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        tree = DraTree(lab.directory / "kubelet")
        web = lab.pod("web", namespace="shop", uid=POD_UID)
        train = lab.pod("train", namespace="shop")
        web.veth("net1", ["192.0.2.5/24"], MAC)
        containers = {name: web.container(name) for name in ("app", "whole", "plain")}
        containers["train"] = train.container("train")
        web.spec = {
            "resourceClaims": [
                {"name": "nic", "resourceClaimTemplateName": "vf"},
                {"name": "gpu", "resourceClaimName": GPU},
            ]
        }
        web.status = {"resourceClaimStatuses": [{"name": "nic", "resourceClaimName": NIC}]}
        train.spec = {"resourceClaims": [{"name": "accelerator", "resourceClaimName": GPU}]}
        containers["app"].resources = {"claims": [{"name": "nic", "request": "vf"}]}
        containers["whole"].resources = {"claims": [{"name": "nic"}, {"name": "gpu"}]}
        containers["train"].resources = {"claims": [{"name": "accelerator", "request": "gpu"}]}
        kubelet.pods = [
            resources_of("web", ["app", "whole", "plain"]),
            resources_of("train", ["train"]),
        ]
        root = build_sriov_node(lab.directory / "node")
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, root)
        agent = lab.agent(
            f"--host-root={root}",
            f"--pod-resources={kubelet.path}",
            f"--kubelet-root={tree.kubelet_root}",
            *flags,
            around=enter,
        )
        yield DraNode(lab, agent, kubelet, tree, web, containers)


__all__ = ["VF", "VFIO_VF", "DraNode", "dra_node", "health", "resources_of"]
