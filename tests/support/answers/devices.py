"""Answers about devices with every field set: a DPDK pod on a node of two NUMA nodes."""

from __future__ import annotations

from typing import Any

from google.protobuf.struct_pb2 import Struct
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import core as answers

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


def part_error(part: str = "interfaces") -> api.PartError:
    return api.PartError(
        part=part,
        code="UNAVAILABLE",
        reason="POD_RESOURCES_UNAVAILABLE",
        message="The kubelet's PodResources socket cannot be reached.",
        read="/var/lib/kubelet/pod-resources/kubelet.sock",
        advice="Mount the directory.",
    )


PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
SRIOV_DRIVER = "sriovnetwork.k8snetworkplumbingwg.io"


def claim_device(
    number: int = 5, driver: str = "vfio-pci", numa_node: int = 0, **fields: Any
) -> api.ClaimDevice:
    """A virtual function as the SR-IOV DRA driver publishes it. No address is in its name."""
    address = f"0000:3b:02.{number}"
    return api.ClaimDevice(
        pool="node-1",
        device=f"vf-{number}",
        attributes={PCI_BUS_ID: api.DeviceAttribute(string_value=address)},
        pci=api.PCIInfo(
            address=address,
            driver=driver,
            vendor_id="0x8086",
            device_id="0x1889",
            numa_node=numa_node,
            pf_address="0000:3b:00.0",
            vf_index=number,
            iommu_group=40 + number,
        ),
        **fields,
    )


def claim_request(*devices: api.ClaimDevice, **fields: Any) -> api.ClaimRequest:
    """A request of a claim that was made from a template; its driver writes device metadata."""
    values: dict[str, Any] = {
        "pod_claim": "nic",
        "claim_name": "web-0-nic-x7k2p",
        "claim_namespace": "default",
        "claim_uid": "6f5c1d34-8a0e-4a57-9d52-4f6f4c8e2b11",
        "request": "vf",
        "driver": SRIOV_DRIVER,
        "source": api.CLAIM_SOURCE_NODE,
        "generation": 2,
        **fields,
    }
    return api.ClaimRequest(devices=devices, **values)


def whole_claim_device() -> api.ClaimDevice:
    """A device with every field and every type of attribute."""
    device = claim_device(
        network_data=api.ClaimNetworkData(
            interface_name="net5", ips=["192.0.2.15/24"], hardware_address="c2:11:22:33:44:05"
        ),
        share_id="5e2f",
        conditions=[
            api.DeviceCondition(
                type="NetworkReady",
                status="False",
                reason="NoCarrier",
                message="the port has no carrier",
                last_transition_time=answers.observed_at(),
            )
        ],
        health="Unhealthy",
        health_message="the firmware does not answer",
    )
    attributes = {
        "numaNode": api.DeviceAttribute(int_value=0),
        "rdma": api.DeviceAttribute(bool_value=False),
        "firmware": api.DeviceAttribute(version_value="1.2.3"),
        "resource.kubernetes.io/numaNode": api.DeviceAttribute(int_values=[0, 1]),
        "flags": api.DeviceAttribute(bool_values=[True, False]),
        "ports": api.DeviceAttribute(string_values=["a", "b"]),
        "versions": api.DeviceAttribute(version_values=["1.0.0"]),
    }
    for name, value in attributes.items():
        device.attributes[name].CopyFrom(value)
    return device


def interface_claim(device: api.ClaimDevice) -> api.InterfaceClaim:
    """The claim of `claim_request`, as an interface names it."""
    return api.InterfaceClaim(
        pod_claim="nic",
        claim_name="web-0-nic-x7k2p",
        request="vf",
        driver=SRIOV_DRIVER,
        source=api.CLAIM_SOURCE_NODE,
        device=device,
    )


def resources() -> api.ResourceResponse:
    claim = api.ClaimResource(
        cdi_devices=["vendor.example/class=one"],
        driver_name="driver.example",
        pool_name="pool",
        device_name="one",
    )
    return api.ResourceResponse(
        devices=[
            api.Device(ID="0000:3b:02.1", resourceName="intel.com/sriov", numa_nodes=[0]),
            api.Device(ID="tun", resourceName="example.com/tun"),
        ],
        exclusive_cpu_ids=[2, 3],
        exclusive_cpus="2-3",
        memory=[
            api.MemoryBlock(type="memory", size_bytes=2 * GIBIBYTE, numa_nodes=[0]),
            api.MemoryBlock(type="hugepages-1Gi", size_bytes=GIBIBYTE, numa_nodes=[0]),
        ],
        dynamic_resources=[
            api.DynamicResource(
                claim_name="nic", claim_namespace="default", claim_resources=[claim]
            )
        ],
        observed_at=answers.observed_at(),
        pci=[sriov().pci],
        absent_pci=["0000:3b:02.9"],
        pci_error=part_error("pci"),
        claims=[claim_request(whole_claim_device())],
    )


def link() -> api.Link:
    return api.Link(
        index=2,
        kind="veth",
        mac="0a:58:0a:f4:00:05",
        mtu=1450,
        operational_state="UP",
        up=True,
        addresses=[
            api.Address(address="10.244.0.5/24", scope="global"),
            api.Address(address="fe80::1/64", scope="link", peer="fe80::2"),
        ],
        default_routes=[
            api.DefaultRoute(gateway="10.244.0.1", ip_version=4, metric=100, source="10.244.0.5")
        ],
        counters=api.LinkCounters(rx_bytes=1, rx_packets=2, tx_bytes=3, tx_dropped=4),
        parent_index=9,
        parent_namespace_id=0,
    )


def sriov(number: int = 1, numa_node: int = 0, driver: str = "vfio-pci") -> api.Interface:
    """A virtual function that is not visible as a link."""
    address = f"0000:3b:02.{number}"
    info = Struct()
    info.update({"generic": {"deviceID": address}})
    return api.Interface(
        name=f"net{number}",
        device_type=api.DEVICE_TYPE_SR_IOV,
        network=answers.network_status().status[1],
        pci=api.PCIInfo(
            address=address,
            driver=driver,
            vendor_id="0x8086",
            device_id="0x1889",
            numa_node=numa_node,
            pf_address="0000:3b:00.0",
            vf_index=number,
            iommu_group=40 + number,
            max_vfs=64,
        ),
        allocated=api.AllocatedDevice(
            variable="PCIDEVICE_INTEL_COM_SRIOV",
            position=0,
            pci_address=address,
            info=info,
            name=address,
            from_start=True,
        ),
    )


def af_xdp_device(name: str, *, from_start: bool = False) -> api.AllocatedDevice:
    """A link that the AF_XDP device plugin gave, as AFXDP_DEVICES names it."""
    return api.AllocatedDevice(variable="AFXDP_DEVICES", name=name, from_start=from_start)


def interfaces() -> api.InterfacesResponse:
    default = api.Interface(
        name="eth0",
        device_type=api.DEVICE_TYPE_HOST,
        network=answers.network_status().status[0],
        link=link(),
        drift=[api.Drift(field="mtu", reported="1500", found="1450")],
    )
    return api.InterfacesResponse(
        interfaces=[default, sriov()],
        source=api.NETWORK_SOURCE_NETWORK_STATUS,
        observed_at=answers.observed_at(),
        start_error=part_error("start"),
        af_xdp=api.AfXdpDevices(devices=[af_xdp_device("eth0")]),
    )


def hugepages() -> api.HugepagesResponse:
    return api.HugepagesResponse(
        containers=[
            api.ContainerHugepages(
                container_name="app",
                page_size_bytes=GIBIBYTE,
                request_bytes=GIBIBYTE,
                limit_bytes=GIBIBYTE,
                granted_request_bytes=GIBIBYTE,
                granted_limit_bytes=GIBIBYTE,
                kind="container",
            )
        ],
        pod=[
            api.PodHugepages(
                page_size_bytes=2 * MEBIBYTE,
                request_bytes=64 * MEBIBYTE,
                limit_bytes=64 * MEBIBYTE,
            )
        ],
        usage=[
            api.HugepageUsage(
                page_size_bytes=2 * MEBIBYTE,
                limit_bytes=0,
                limit_level=api.CGROUP_LEVEL_CONTAINER,
                container_limit_bytes=0,
            ),
            api.HugepageUsage(
                page_size_bytes=GIBIBYTE,
                limit_bytes=GIBIBYTE,
                usage_bytes=GIBIBYTE,
                failures=1,
                limit_level=api.CGROUP_LEVEL_POD,
            ),
        ],
        pools=[
            api.HugepagePool(
                page_size_bytes=GIBIBYTE,
                total_bytes=4 * GIBIBYTE,
                free_bytes=3 * GIBIBYTE,
                reserved_bytes=0,
                numa_nodes=[
                    api.NumaHugepages(
                        numa_node=node, total_bytes=2 * GIBIBYTE, free_bytes=free * GIBIBYTE
                    )
                    for node, free in ((0, 1), (1, 2))
                ],
            )
        ],
    )


def everything() -> api.AllResponse:
    return api.AllResponse(
        pod=answers.pod(),
        cpu=answers.cpu(),
        environment=answers.environment(),
        network_status=answers.network_status(),
        interfaces=interfaces(),
        hugepages=hugepages(),
        resources=resources(),
    )
