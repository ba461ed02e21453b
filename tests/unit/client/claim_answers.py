"""The pod of the documents that has its devices by resource claims, as the fake agent reports it.

Attributes are those that the SR-IOV DRA driver publishes (pkg/devicestate/discovery.go).
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.devices import GIBIBYTE, PCI_BUS_ID, SRIOV_DRIVER
from tests.support.answers.dpdk import facts

UID = "3f2b6a9e-7c1d-4e0a-9b7e-2f5d8c6b1a00"
ADDRESS = "0000:3b:01.2"


def observed_at() -> Timestamp:
    moment = Timestamp()
    moment.FromJsonString("2026-11-24T15:00:49.392224Z")
    return moment


def function() -> api.PCIInfo:
    return api.PCIInfo(
        address=ADDRESS,
        driver="vfio-pci",
        vendor_id="0x8086",
        device_id="0x1889",
        numa_node=0,
        pf_address="0000:3b:00.0",
        vf_index=2,
        iommu_group=42,
        class_code="0x020000",
    )


def virtual_function() -> api.ClaimDevice:
    attributes = {
        PCI_BUS_ID: api.DeviceAttribute(string_value=ADDRESS),
        "resource.kubernetes.io/numaNode": api.DeviceAttribute(int_value=0),
        "resource.kubernetes.io/pcieRoot": api.DeviceAttribute(string_value="pci0000:3a"),
        f"{SRIOV_DRIVER}/PFName": api.DeviceAttribute(string_value="ens1f0"),
        f"{SRIOV_DRIVER}/vfID": api.DeviceAttribute(int_value=2),
        f"{SRIOV_DRIVER}/rdmaCapable": api.DeviceAttribute(bool_value=False),
    }
    return api.ClaimDevice(
        pool="node-1",
        device="0000-3b-01-2",
        attributes=attributes,
        network_data=api.ClaimNetworkData(
            interface_name="net1", ips=["192.0.2.5/24"], hardware_address="02:09:c0:a8:03:05"
        ),
        pci=function(),
        health="Healthy",
    )


def claim() -> api.ClaimRequest:
    return api.ClaimRequest(
        pod_claim="n3",
        claim_name="upf-n3-x7k2p",
        claim_namespace="telco",
        claim_uid="6f5c1d34-8a0e-4a57-9d52-4f6f4c8e2b11",
        request="vf",
        driver=SRIOV_DRIVER,
        source=api.CLAIM_SOURCE_NODE,
        generation=2,
        devices=[virtual_function()],
    )


def resources() -> api.ResourceResponse:
    prepared = api.ClaimResource(
        cdi_devices=[f"{SRIOV_DRIVER}/vf=6f5c1d34-0000-3b-01-2"],
        driver_name=SRIOV_DRIVER,
        pool_name="node-1",
        device_name="0000-3b-01-2",
    )
    return api.ResourceResponse(
        exclusive_cpu_ids=[1],
        exclusive_cpus="1",
        dynamic_resources=[
            api.DynamicResource(
                claim_name="upf-n3-x7k2p", claim_namespace="telco", claim_resources=[prepared]
            )
        ],
        observed_at=observed_at(),
        claims=[claim()],
    )


def interfaces() -> api.InterfacesResponse:
    default = api.Interface(
        name="eth0",
        device_type=api.DEVICE_TYPE_HOST,
        network=api.NetworkStatus(interface="eth0", ips=["10.244.0.2"], default=True),
        link=api.Link(
            index=2,
            kind="veth",
            mac="02:9d:d8:0a:9b:64",
            mtu=1500,
            operational_state="UP",
            up=True,
            addresses=[api.Address(address="10.244.0.2/24")],
            counters=api.LinkCounters(),
        ),
    )
    claimed = api.Interface(
        name="net1",
        device_type=api.DEVICE_TYPE_SR_IOV,
        device_type_source=api.DEVICE_TYPE_SOURCE_SYSFS,
        device_source=api.DEVICE_SOURCE_CLAIM,
        pci=function(),
        claim=api.InterfaceClaim(
            pod_claim="n3",
            claim_name="upf-n3-x7k2p",
            request="vf",
            driver=SRIOV_DRIVER,
            source=api.CLAIM_SOURCE_NODE,
            device=virtual_function(),
        ),
    )
    return api.InterfacesResponse(
        interfaces=[default, claimed],
        source=api.NETWORK_SOURCE_POD_STATUS,
        observed_at=observed_at(),
        af_xdp=api.AfXdpDevices(),
    )


def everything() -> api.AllResponse:
    """All answers of a container with CPU 1 and 1 GiB of huge pages."""
    whole = facts()
    whole.pod.CopyFrom(
        api.PodResponse(namespace="telco", name="upf", container_name="app", uid=UID)
    )
    whole.cpu.exclusive_cpus = whole.cpu.effective_cpus = whole.cpu.affinity = "1"
    whole.interfaces.CopyFrom(interfaces())
    whole.resources.CopyFrom(resources())
    whole.resources.memory.add(type="hugepages-1Gi", size_bytes=GIBIBYTE, numa_nodes=[0])
    return whole


def changed() -> api.WatchResponse:
    """The driver writes its device metadata again, and the kubelet reports the device again."""
    whole = everything()
    device = whole.resources.claims[0].devices[0]
    whole.resources.claims[0].generation = 3
    device.health, device.health_message = "Unhealthy", "no carrier"
    return api.WatchResponse(
        snapshot=whole, version=2, changed=["resources"], observed_at=observed_at()
    )
