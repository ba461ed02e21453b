"""The interface of a claim's device, and differences between its driver and the kernel."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.facts.claims import (
    Claims,
    InterfaceClaim,
    interface_claims,
    match_claims,
)
from netutil.agent.facts.drift import Drift
from netutil.agent.facts.interfaces import DeviceType, Interface, merge
from netutil.agent.facts.links import Address, Link
from netutil.agent.facts.network import Networks, Source
from netutil.agent.facts.pairing import DeviceSource
from netutil.agent.parsers.claims import (
    PCI_BUS_ID,
    Attribute,
    ClaimDevice,
    ClaimRequest,
    NetworkData,
)
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.agent.parsers.network_status import Device, DeviceInfo, NetworkStatus
from netutil.agent.parsers.pci import PciInfo

VF, OTHER = "0000:3b:02.1", "0000:3b:02.2"
MAC = "02:00:00:00:00:05"
REQUEST = ClaimRequest("nic", "nic-x7k2p", "shop", request="vf", driver="sriov.example.com")
PCI = {
    VF: PciInfo(VF, driver="iavf", pf_address="0000:3b:00.0", class_code="0x020000"),
    OTHER: PciInfo(OTHER, driver="vfio-pci", pf_address="0000:3b:00.0", class_code="0x020000"),
}


def device(address: str = "", name: str = "", **data: Any) -> ClaimDevice:
    attributes = ((PCI_BUS_ID, Attribute(string_value=address)),) if address else ()
    network = NetworkData(interface_name=name, **data) if name or data else None
    return ClaimDevice("node-1", "d", attributes, network, pci=PCI.get(address))


def link(name: str, address: str = "", *, index: int = 2, ip: str = "10.1.0.5/24") -> Link:
    return Link(
        index,
        name,
        mac=MAC,
        addresses=(Address(ip, "global"),),
        parent_device=address,
        parent_device_bus="pci" if address else "",
    )


def merged(
    devices: list[ClaimDevice],
    links: list[Link] | None,
    networks: list[NetworkStatus] | None = None,
    allocated: list[AllocatedDevice] | None = None,
    **more: Any,
) -> tuple[Interface, ...]:
    claims = [InterfaceClaim(REQUEST, one) for one in devices]
    reported = Networks(tuple(networks), Source.NETWORK_STATUS) if networks is not None else None
    return merge(reported, links, allocated or (), PCI.get, claims=claims, **more)


def test_a_name_that_the_driver_reports_is_the_links() -> None:
    claimed = device(name="net1", ips=("10.1.0.5/24",), hardware_address=MAC.upper())
    (found,) = merged([claimed], [link("net1")])
    assert found.claim is not None and found.claim.device is claimed
    assert (found.device_source, found.drift) == (DeviceSource.CLAIM, ())
    assert (found.name, found.device_type) == ("net1", DeviceType.HOST)


def test_a_pci_address_is_the_links() -> None:
    (found,) = merged([device(VF)], [link("net7", VF)])
    assert found.claim is not None
    assert (found.name, found.device_source) == ("net7", DeviceSource.CLAIM)
    assert (found.device_type, found.pci, found.drift) == (DeviceType.SR_IOV, PCI[VF], ())


def test_the_name_counts_before_the_address() -> None:
    claimed = device(VF, "net1")
    net1, net2 = merged([claimed], [link("net1", OTHER), link("net2", VF, index=3)])
    assert (net1.claim is not None, net2.claim) == (True, None)
    assert net1.drift == (Drift("claim-pci-address", VF, OTHER),)


def test_a_reported_name_that_is_another_link_is_drift() -> None:
    (found,) = merged([device(VF, "net1")], [link("net7", VF)])
    assert found.name == "net7"
    assert found.drift == (Drift("claim-interface-name", "net1", "net7"),)


def test_an_address_that_is_not_on_the_link_is_drift() -> None:
    claimed = device(name="net1", ips=("10.1.0.5/24", "10.9.9.9/24", "odd"))
    (found,) = merged([claimed], [link("net1")])
    assert found.drift == (Drift("claim-ips", "10.9.9.9/24, odd", "10.1.0.5/24"),)


def test_another_hardware_address_is_drift() -> None:
    (found,) = merged([device(name="net1", hardware_address="02:00:00:00:00:06")], [link("net1")])
    assert found.drift == (Drift("claim-hardware-address", "02:00:00:00:00:06", MAC),)


def test_a_device_without_a_link_is_an_entry() -> None:
    eth0, found = merged([device(OTHER), device(name="net9")], [link("eth0")])[:2]
    assert (eth0.name, eth0.claim) == ("eth0", None)
    assert (found.name, found.pci, found.device_source) == ("", PCI[OTHER], DeviceSource.CLAIM)
    assert found.drift == ()  # vfio-pci: no link is to be expected
    last = merged([device(name="net9")], [link("eth0")])[-1]
    assert (last.name, last.drift) == ("net9", (Drift("claim-interface-name", "net9"),))


def test_unknown_links_are_no_drift() -> None:
    (found,) = merged([device(name="net9", ips=("10.0.0.1/8",))], None)
    assert (found.name, found.drift) == ("net9", ())


def test_links_of_the_node_are_no_drift() -> None:
    (found,) = merged([device(name="eth1")], [link("eth1")], host_network=True)
    assert (found.name, found.link, found.drift) == ("eth1", None, ())


def test_a_device_that_the_host_lacks_is_drift() -> None:
    absent = "0000:99:00.0"
    claims = [InterfaceClaim(REQUEST, device(absent, "net1"))]
    (found,) = merge(None, [link("net1")], (), PCI.get, claims=claims)
    assert found.drift == (Drift("claim-pci-address", absent),)


def test_a_reported_network_has_the_device_of_its_name() -> None:
    network = NetworkStatus("shop/fast", "net1")
    (found,) = merged([device(OTHER, "net1")], [], [network])
    assert found.claim is not None and found.network is network
    assert (found.pci, found.device_source) == (PCI[OTHER], DeviceSource.CLAIM)


def test_a_device_info_that_says_otherwise_is_drift() -> None:
    info = DeviceInfo("pci", "1.1.0", {"pci": Device({"pci-address": OTHER})})
    network = NetworkStatus("shop/fast", "net1", device_info=info)
    (found,) = merged([device(VF, "net1")], [link("net1", VF)], [network])
    assert found.pci == PCI[VF]
    assert Drift("pci-address", OTHER, VF) in found.drift


def test_a_variable_of_the_same_device_is_of_the_same_entry() -> None:
    variable = AllocatedDevice("PCIDEVICE_X", 0, OTHER, OTHER)
    (found,) = merged([device(OTHER)], [], [], [variable])
    assert found.allocated is variable and found.claim is not None


def test_a_network_gets_no_device_that_is_a_claims() -> None:
    variable = AllocatedDevice("PCIDEVICE_X", 0, OTHER, OTHER)
    network = NetworkStatus("shop/fast", "net1")
    net1, found = merged([device(OTHER)], [], [network], [variable])
    assert (net1.pci, net1.claim, net1.allocated) == (None, None, None)
    assert found.allocated is variable


def test_the_second_device_of_a_name_is_alone() -> None:
    first, second = device(VF, "net1"), device(OTHER, "net1")
    net1, left = merged([first, second], [link("net1", VF)])
    assert net1.claim is not None and net1.claim.device is first
    assert left.claim is not None and left.claim.device is second
    assert (left.link, left.name) == (None, "net1")


def test_a_device_of_no_network_is_no_interface() -> None:
    gpu = PciInfo("0000:af:00.0", class_code="0x030000")
    claimed = ClaimDevice("p", "gpu", ((PCI_BUS_ID, Attribute(string_value=gpu.address)),), pci=gpu)
    assert merged([claimed, ClaimDevice("p", "other")], [link("eth0")])[1:] == ()


@pytest.mark.parametrize(
    ("attribute", "address"),
    [
        (Attribute(string_value="0000:3B:02.1"), VF),
        (Attribute(string_value="../../etc"), ""),
        (Attribute(int_value=7), ""),
        (Attribute(string_values=(VF,)), ""),
    ],
    ids=["upper", "path", "number", "list"],
)
def test_only_the_attribute_says_the_address(attribute: Attribute, address: str) -> None:
    named = ClaimDevice("p", "0000-3b-02-1", ((PCI_BUS_ID, attribute),))
    assert named.pci_address == address
    assert ClaimDevice("p", "0000-3b-02-1").pci_address == ""


def test_errors_of_requests_are_those_of_the_whole() -> None:
    error = Unavailable(Reason.FILE_NOT_READABLE, "no")
    claims = Claims((REQUEST, ClaimRequest("a", "b", "c", error=error)))
    assert claims.first_error is error and interface_claims(claims) == ()


NAMES = st.sampled_from(["", "a", "b", "c"])


@given(
    st.lists(st.tuples(NAMES, st.sampled_from(["", VF, OTHER])), max_size=5),
    st.lists(st.tuples(NAMES, NAMES, st.sampled_from(["", VF, OTHER])), max_size=5),
)
def test_each_device_and_interface_is_matched_once(
    devices: list[tuple[str, str]], entries: list[tuple[str, str, str]]
) -> None:
    claims = [InterfaceClaim(REQUEST, device(address, name)) for name, address in devices]
    links, names, addresses = ([one[n] for one in entries] for n in range(3))
    found = match_claims(claims, links, names, addresses)
    assert len(set(found.values())) == len(found)
    for position, number in found.items():
        name, address = devices[number]
        fits = name and name in (links[position], names[position])
        assert fits or (address and address == addresses[position])
