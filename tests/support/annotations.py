"""Network-status annotations as the plugins write them, and what they say."""

from __future__ import annotations

from netutil.agent.parsers.network_status import DNS, Device, DeviceInfo, NetworkStatus

NO_DNS = DNS()

MULTUS_DEFAULT_ONLY = """[{
    "name": "cbr0",
    "interface": "eth0",
    "ips": [
        "10.244.1.73"
    ],
    "mac": "86:1d:96:ff:55:0d",
    "default": true,
    "dns": {}
}]"""

MULTUS_SEVERAL = """[{
    "name": "k8s-pod-network",
    "ips": ["192.168.166.142", "fd00:10:244::a68e"],
    "default": true,
    "dns": {}
},{
    "name": "default/macvlan-conf",
    "interface": "net1",
    "ips": ["192.168.1.205"],
    "mac": "0e:6f:8c:41:dd:07",
    "dns": {
        "nameservers": ["192.168.1.1", "fe80::1"],
        "domain": "lab.example",
        "search": ["lab.example", "example"],
        "options": ["ndots:2", "edns0"]
    }
},{
    "name": "default/bridge-l2",
    "interface": "net2",
    "mac": "5a:0c:11:9e:2f:b4",
    "dns": {}
}]"""

SRIOV_1_0 = """[{"name": "telco/sriov-fronthaul", "interface": "net1", "mac": "20:04:0f:f1:88:01",
 "ips": ["10.56.217.173"], "dns": {},
 "device-info": {"type": "pci", "version": "1.0.0", "pci": {"pci-address": "0000:18:02.5"}}}]"""

SRIOV_1_1_ALL = """[{"name": "telco/sriov-switchdev", "interface": "net1", "mtu": 9000, "dns": {},
 "device-info": {"type": "pci", "version": "1.1.0", "pci": {
  "pci-address": "0000:03:00.2", "vhost-net": "/dev/vhost-net", "rdma-device": "mlx5_4",
  "pf-pci-address": "0000:03:00.0", "representor-device": "enp3s0f0_0"}}}]"""

VDPA = """[{"name": "telco/ovs-vdpa", "interface": "net1", "mac": "0a:58:0a:80:02:1f",
 "device-info": {"type": "vdpa", "version": "1.1.0", "vdpa": {
  "parent-device": "vdpa:0000:65:00.3", "driver": "vhost", "path": "/dev/vhost-vdpa-1",
  "pci-address": "0000:65:00.3", "pf-pci-address": "0000:65:00.0",
  "representor-device": "eth3_1"}}}]"""

VHOST_USER = """[{"name": "ovs/userspace-ovs-net-1", "interface": "net1", "dns": {},
 "device-info": {"type": "vhost-user", "version": "1.0.0", "vhost-user": {
  "mode": "client", "path": "/var/lib/cni/usrspcni/55d27ed6fa-net1"}}}]"""

# Written by the Userspace CNI plugin beside the network-status, which then has no device-info.
USERSPACE = """[{
    "containerId": "87042916ab4dac68611ea9d2f02bcf26bc82b5d17716ffa9ebff1cf36af1fca3",
    "ifName": "net1",
    "name": "userspace-ovs-net-1",
    "config": {
        "engine": "ovs-dpdk",
        "iftype": "vhostuser",
        "netType": "interface",
        "memif": {},
        "vhost": {"mode": "client", "socketfile": "87042916ab4d-net1"},
        "bridge": {}
    },
    "ipResult": {
        "interfaces": [{"name": "net1", "sandbox": "/proc/2910/ns/net"}],
        "dns": {}
    }
},{
    "containerId": "87042916ab4dac68611ea9d2f02bcf26bc82b5d17716ffa9ebff1cf36af1fca3",
    "ifName": "net2",
    "name": "userspace-vpp-net",
    "config": {
        "engine": "vpp",
        "iftype": "memif",
        "netType": "interface",
        "memif": {
            "role": "slave", "mode": "ethernet", "socketfile": "memif-87042916ab4d-net2.sock"
        },
        "vhost": {},
        "bridge": {}
    },
    "ipResult": {
        "interfaces": [{"name": "net2", "sandbox": "/proc/2910/ns/net"}],
        "dns": {}
    }
}]"""
USERSPACE_DIRECTORY = "/var/lib/cni/usrspcni/"

MEMIF = """[{"name": "vpp/to-core", "interface": "net1", "device-info": {
  "type": "memif", "version": "1.0.0",
  "memif": {"role": "master", "path": "/var/lib/vpp/memif-1.sock", "mode": "ethernet"}}},
 {"name": "vpp/routed", "interface": "net2", "device-info": {
  "type": "memif", "version": "1.0.0",
  "memif": {"role": "slave", "path": "/var/lib/vpp/memif-2.sock", "mode": "ip"}}},
 {"name": "vpp/capture", "interface": "net3", "device-info": {
  "type": "memif", "version": "1.1.0",
  "memif": {"role": "slave", "path": "/var/lib/vpp/memif-3.sock", "mode": "inject-punt"}}},
 {"name": "vpp/older-capture", "interface": "net4", "device-info": {
  "type": "memif", "version": "1.0.0",
  "memif": {"role": "slave", "path": "/var/lib/vpp/memif-4.sock", "mode": "punt"}}}]"""

OVN_KUBERNETES = """[{"name": "ovn-kubernetes", "interface": "eth0",
 "ips": ["10.128.2.19", "fd01:0:0:4::13"], "mac": "0a:58:0a:80:02:13", "default": true,
 "mtu": 1400, "gateway": ["10.128.2.1", "fd01:0:0:4::1"], "dns": {}}]"""

INFINIBAND = """[{"name": "hpc/ib-sriov", "interface": "net1", "ips": ["192.168.5.6"],
 "mac": "00:00:10:49:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01", "mtu": 4092,
 "dns": {}, "device-info": {"type": "pci", "version": "1.1.0",
 "pci": {"pci-address": "0000:d8:00.3", "rdma-device": "mlx5_3"}}}]"""

PREFIX_LENGTHS = """[{"name": "default/static", "interface": "net1",
 "ips": ["10.1.1.11/24", "2001:db8::11/64"]}]"""

EXTENSIONS = """[{"name": "default/vendor", "interface": "net1",
 "com.example.vlan": 105, "com.example.path": {"spine": ["s1", null, true, 1.5]},
 "com.example.nothing": null, "dns": {"domain": "lab.example", "com.example.ttl": 5},
 "device-info": {"type": "pci", "version": "1.1.0", "com.example.slot": "7",
  "pci": {"pci-address": "0000:01:00.1", "com.example.queues": [1, 2]}}}]"""

OTHER_DEVICE_TYPE = """[{"name": "default/new", "device-info":
 {"type": "com.example.dpu", "version": "2.0.0", "com.example.dpu": {"port": 3}}}]"""


def _memif(role: str, number: int, mode: str, version: str = "1.0.0") -> DeviceInfo:
    fields = {"role": role, "path": f"/var/lib/vpp/memif-{number}.sock", "mode": mode}
    return DeviceInfo("memif", version, {"memif": Device(fields)})


def _pci(version: str, **fields: str) -> DeviceInfo:
    """A PCI device; the fields that are not given are empty."""
    names = ("pci-address", "vhost-net", "rdma-device", "pf-pci-address", "representor-device")
    values = {name: fields.get(name.replace("-", "_"), "") for name in names}
    return DeviceInfo("pci", version, {"pci": Device(values)})


REAL_WORLD: dict[str, tuple[str, tuple[NetworkStatus, ...]]] = {
    "Multus, the cluster's network only": (
        MULTUS_DEFAULT_ONLY,
        (
            NetworkStatus(
                "cbr0", "eth0", "86:1d:96:ff:55:0d", ("10.244.1.73",), default=True, dns=NO_DNS
            ),
        ),
    ),
    "Multus, several networks, one without an interface name, one without addresses": (
        MULTUS_SEVERAL,
        (
            NetworkStatus(
                "k8s-pod-network",
                ips=("192.168.166.142", "fd00:10:244::a68e"),
                default=True,
                dns=NO_DNS,
            ),
            NetworkStatus(
                "default/macvlan-conf",
                "net1",
                "0e:6f:8c:41:dd:07",
                ("192.168.1.205",),
                dns=DNS(
                    ("192.168.1.1", "fe80::1"),
                    "lab.example",
                    ("lab.example", "example"),
                    ("ndots:2", "edns0"),
                ),
            ),
            NetworkStatus("default/bridge-l2", "net2", "5a:0c:11:9e:2f:b4", dns=NO_DNS),
        ),
    ),
    "SR-IOV, device-info 1.0": (
        SRIOV_1_0,
        (
            NetworkStatus(
                "telco/sriov-fronthaul",
                "net1",
                "20:04:0f:f1:88:01",
                ("10.56.217.173",),
                dns=NO_DNS,
                device_info=_pci("1.0.0", pci_address="0000:18:02.5"),
            ),
        ),
    ),
    "SR-IOV, device-info 1.1 with every field": (
        SRIOV_1_1_ALL,
        (
            NetworkStatus(
                "telco/sriov-switchdev",
                "net1",
                mtu=9000,
                dns=NO_DNS,
                device_info=_pci(
                    "1.1.0",
                    pci_address="0000:03:00.2",
                    vhost_net="/dev/vhost-net",
                    rdma_device="mlx5_4",
                    pf_pci_address="0000:03:00.0",
                    representor_device="enp3s0f0_0",
                ),
            ),
        ),
    ),
    "vDPA": (
        VDPA,
        (
            NetworkStatus(
                "telco/ovs-vdpa",
                "net1",
                "0a:58:0a:80:02:1f",
                device_info=DeviceInfo(
                    "vdpa",
                    "1.1.0",
                    {
                        "vdpa": Device(
                            {
                                "parent-device": "vdpa:0000:65:00.3",
                                "driver": "vhost",
                                "path": "/dev/vhost-vdpa-1",
                                "pci-address": "0000:65:00.3",
                                "pf-pci-address": "0000:65:00.0",
                                "representor-device": "eth3_1",
                            }
                        )
                    },
                ),
            ),
        ),
    ),
    "vhost-user": (
        VHOST_USER,
        (
            NetworkStatus(
                "ovs/userspace-ovs-net-1",
                "net1",
                dns=NO_DNS,
                device_info=DeviceInfo(
                    "vhost-user",
                    "1.0.0",
                    {
                        "vhost-user": Device(
                            {"mode": "client", "path": "/var/lib/cni/usrspcni/55d27ed6fa-net1"}
                        )
                    },
                ),
            ),
        ),
    ),
    "memif in each mode, inject-punt in both spellings": (
        MEMIF,
        (
            NetworkStatus("vpp/to-core", "net1", device_info=_memif("master", 1, "ethernet")),
            NetworkStatus("vpp/routed", "net2", device_info=_memif("slave", 2, "ip")),
            NetworkStatus(
                "vpp/capture", "net3", device_info=_memif("slave", 3, "inject-punt", "1.1.0")
            ),
            NetworkStatus("vpp/older-capture", "net4", device_info=_memif("slave", 4, "punt")),
        ),
    ),
    "OVN-Kubernetes, with gateways and MTU": (
        OVN_KUBERNETES,
        (
            NetworkStatus(
                "ovn-kubernetes",
                "eth0",
                "0a:58:0a:80:02:13",
                ("10.128.2.19", "fd01:0:0:4::13"),
                default=True,
                mtu=1400,
                gateway=("10.128.2.1", "fd01:0:0:4::1"),
                dns=NO_DNS,
            ),
        ),
    ),
    "InfiniBand, a hardware address of 20 bytes": (
        INFINIBAND,
        (
            NetworkStatus(
                "hpc/ib-sriov",
                "net1",
                "00:00:10:49:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01",
                ("192.168.5.6",),
                mtu=4092,
                dns=NO_DNS,
                device_info=_pci("1.1.0", pci_address="0000:d8:00.3", rdma_device="mlx5_3"),
            ),
        ),
    ),
    "addresses with prefix lengths": (
        PREFIX_LENGTHS,
        (NetworkStatus("default/static", "net1", ips=("10.1.1.11/24", "2001:db8::11/64")),),
    ),
    "no networks": ("[]", ()),
    "an attachment without any field": ("[{}]", (NetworkStatus(),)),
}
