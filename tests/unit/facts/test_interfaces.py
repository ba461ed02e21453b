"""One entry per interface, merged from reports, links, devices and a real SR-IOV node's /sys."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from netutil.agent.facts.interfaces import DeviceType, Interface, merge
from netutil.agent.facts.network import Networks, read_networks
from netutil.agent.facts.pci import read_pci
from netutil.agent.parsers.environment import parse_devices

from tests.support.nodes.sriov_node import (
    PF,
    PLAIN,
    SECOND_VF,
    UNBOUND_VF,
    VF,
    VFIO_VF,
    build_sriov_node,
)
from tests.unit.facts.reports import Lookup, link, network, pci_info, reported

DEFAULT = {"name": "cluster", "interface": "eth0", "default": True}


@pytest.fixture
def pci(tmp_path: Path) -> Lookup:
    return partial(read_pci, build_sriov_node(tmp_path))


def shown(interfaces: tuple[Interface, ...]) -> list[tuple[str, str, str, str]]:
    """Name, type, PCI address and variable of each."""
    return [
        (
            one.name,
            one.device_type.value,
            one.pci.address if one.pci else "",
            f"{one.allocated.variable}[{one.allocated.position}]" if one.allocated else "",
        )
        for one in interfaces
    ]


def test_networks_are_in_reported_order_then_links_then_devices(pci: Lookup) -> None:
    found = merge(
        reported(network("net2"), DEFAULT),
        (link(9, "tunl0"), link(4, "eth0"), link(2, "net2"), link(7, "dummy0"), link(1, "lo")),
        parse_devices({"PCIDEVICE_B": PLAIN, "PCIDEVICE_A": f"{VFIO_VF},{UNBOUND_VF}"}),
        pci,
    )
    assert shown(found) == [
        ("net2", "host", "", ""),
        ("eth0", "host", "", ""),
        ("dummy0", "host", "", ""),
        ("tunl0", "host", "", ""),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_A[0]"),
        ("", "sr-iov", UNBOUND_VF, "PCIDEVICE_A[1]"),
        ("", "host", PLAIN, "PCIDEVICE_B[0]"),
    ]


def test_device_info_names_the_device(pci: Lookup) -> None:
    found = merge(
        reported(DEFAULT, network("net1", **pci_info(SECOND_VF)), network("net2", **pci_info(VF))),
        (link(1, "eth0"), link(2, "net1"), link(3, "net2")),
        parse_devices({"PCIDEVICE_A": f"{VF},{SECOND_VF}"}),
        pci,
    )
    assert shown(found) == [
        ("eth0", "host", "", ""),
        ("net1", "sr-iov", SECOND_VF, "PCIDEVICE_A[1]"),
        ("net2", "sr-iov", VF, "PCIDEVICE_A[0]"),
    ]


def test_the_link_names_its_device_without_device_info(pci: Lookup) -> None:
    found = merge(
        reported(DEFAULT, network("net1"), network("net2")),
        (link(1, "eth0"), link(2, "net1", SECOND_VF), link(3, "net2", VF)),
        parse_devices({"PCIDEVICE_A": f"{VF},{SECOND_VF}"}),
        pci,
    )
    assert shown(found)[1:] == [
        ("net1", "sr-iov", SECOND_VF, "PCIDEVICE_A[1]"),
        ("net2", "sr-iov", VF, "PCIDEVICE_A[0]"),
    ]


def test_an_unreported_link_has_its_device(pci: Lookup) -> None:
    found = merge(None, (link(3, "net1", VF),), parse_devices({"PCIDEVICE_A": VF}), pci)
    assert shown(found) == [("net1", "sr-iov", VF, "PCIDEVICE_A[0]")]


def test_linkless_devices_and_reports_are_paired_in_order(pci: Lookup) -> None:
    found = merge(
        reported(
            DEFAULT,
            network("net1", name="shop/one"),
            network("net2", name="shop/two"),
            network("net3", **pci_info(VF)),
        ),
        (link(1, "eth0"), link(2, "net3", VF)),
        parse_devices({"PCIDEVICE_B": f"{VF},{VFIO_VF}", "PCIDEVICE_A": UNBOUND_VF}),
        pci,
    )
    assert shown(found) == [
        ("eth0", "host", "", ""),
        ("net1", "sr-iov", UNBOUND_VF, "PCIDEVICE_A[0]"),
        ("net2", "sr-iov", VFIO_VF, "PCIDEVICE_B[1]"),
        ("net3", "sr-iov", VF, "PCIDEVICE_B[0]"),
    ]


def test_only_a_missing_interface_without_device_info_is_paired(pci: Lookup) -> None:
    memif = {"device-info": {"type": "memif", "memif": {"path": "/run/m"}}}
    found = merge(
        reported(DEFAULT, network("net1", **memif), network("net2")),
        (link(2, "net2"),),
        parse_devices({"PCIDEVICE_A": VFIO_VF}),
        pci,
    )
    assert shown(found) == [
        ("eth0", "unknown", "", ""),
        ("net1", "memif", "", ""),
        ("net2", "host", "", ""),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_A[0]"),
    ]


def test_a_device_that_a_link_names_is_not_paired_with_another(pci: Lookup) -> None:
    found = merge(
        reported(network("net1", **pci_info(SECOND_VF)), network("net2")),
        (link(2, "net1", VF),),
        parse_devices({"PCIDEVICE_A": VF}),
        pci,
    )
    assert shown(found) == [
        ("net1", "sr-iov", SECOND_VF, ""),
        ("net2", "unknown", "", ""),
        ("", "sr-iov", VF, "PCIDEVICE_A[0]"),
    ]


def test_unreported_virtual_functions_are_listed_alone(pci: Lookup) -> None:
    devices = parse_devices({"PCIDEVICE_A": f"{VFIO_VF},{UNBOUND_VF}"})
    found = merge(Networks((), reported().source), (link(2, "eth0"),), devices, pci)
    assert shown(found) == [
        ("eth0", "host", "", ""),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_A[0]"),
        ("", "sr-iov", UNBOUND_VF, "PCIDEVICE_A[1]"),
    ]
    assert all(one.drift == () for one in found)


def test_a_device_of_two_resources_is_paired_once(pci: Lookup) -> None:
    found = merge(
        reported(network("net1")),
        (),
        parse_devices({"PCIDEVICE_A": VFIO_VF, "PCIDEVICE_B": VFIO_VF}),
        pci,
    )
    assert shown(found) == [
        ("net1", "sr-iov", VFIO_VF, "PCIDEVICE_A[0]"),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_B[0]"),
    ]


def test_more_networks_than_devices_are_not_paired(pci: Lookup) -> None:
    devices = parse_devices({"PCIDEVICE_A": VFIO_VF})
    found = merge(reported(network("net1"), network("net2")), (), devices, pci)
    assert shown(found) == [
        ("net1", "unknown", "", ""),
        ("net2", "unknown", "", ""),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_A[0]"),
    ]


def test_two_networks_of_one_device_both_have_it(pci: Lookup) -> None:
    both = (network("net1", **pci_info(VF)), network("net2", **pci_info(VF)))
    found = merge(reported(*both), (), parse_devices({"PCIDEVICE_A": VF}), pci)
    assert shown(found) == [
        ("net1", "sr-iov", VF, "PCIDEVICE_A[0]"),
        ("net2", "sr-iov", VF, "PCIDEVICE_A[0]"),
    ]


def test_a_device_that_is_named_twice_goes_to_two_networks_of_it(pci: Lookup) -> None:
    both = (network("net1", **pci_info(VF)), network("net2", **pci_info(VF)))
    devices = parse_devices({"PCIDEVICE_A": VF, "PCIDEVICE_B": VF})
    assert shown(merge(reported(*both), (), devices, pci)) == [
        ("net1", "sr-iov", VF, "PCIDEVICE_A[0]"),
        ("net2", "sr-iov", VF, "PCIDEVICE_B[0]"),
    ]


def test_the_device_of_the_infos_own_type_counts(pci: Lookup) -> None:
    info = {"type": "vdpa", "pci": {"pci-address": PLAIN}, "vdpa": {"pci-address": VF}}
    (found,) = merge(reported(network("net1", **{"device-info": info})), (), (), pci)
    assert found.pci is not None and found.pci.address == VF


def test_a_device_of_another_bus_is_no_pci_device(pci: Lookup) -> None:
    live = structs.replace(link(2, "net1", VF), parent_device_bus="platform")
    assert shown(merge(None, (live,), (), pci)) == [("net1", "host", "", "")]


def test_a_subfunction_is_listed_alone_and_never_paired(pci: Lookup) -> None:
    devices = parse_devices({"PCIDEVICE_A": "mlx5_core.sf.4"})
    found = merge(reported(network("net1")), (), devices, pci)
    assert shown(found) == [("net1", "unknown", "", ""), ("", "unknown", "", "PCIDEVICE_A[0]")]
    assert found[1].drift == ()


def test_the_pods_own_ips_find_the_link_that_has_them(pci: Lookup) -> None:
    networks = read_networks({}, ("10.0.0.7", "fd00::7"), pod="shop/web")
    links = (
        link(1, "lo", "", "127.0.0.1/8"),
        link(2, "other", "", "10.0.0.8/24"),
        link(3, "eth0", "", "10.0.0.7/24", "fd00:0:0::7/64"),
    )
    first, second = merge(networks, links, (), pci)
    assert (first.name, first.link, first.network) == ("eth0", links[2], networks.status[0])
    assert first.drift == ()
    assert second.name == "other"


def test_lo_is_listed_only_if_it_is_reported(pci: Lookup) -> None:
    lo = link(1, "lo")
    assert merge(None, (lo,), (), pci) == ()
    (found,) = merge(reported(network("lo")), (lo,), (), pci)
    assert found.link == lo


def test_a_host_network_pod_is_not_given_the_nodes_links(pci: Lookup) -> None:
    networks = reported(DEFAULT, network("net1", mac="02:00:00:00:00:09", **pci_info(VF)))
    devices = parse_devices({"PCIDEVICE_A": f"{VF},{PLAIN}"})
    found = merge(networks, (link(1, "eth0"), link(2, "br0")), devices, pci, host_network=True)
    assert shown(found) == [
        ("eth0", "unknown", "", ""),
        ("net1", "sr-iov", VF, "PCIDEVICE_A[0]"),
        ("", "host", PLAIN, "PCIDEVICE_A[1]"),
    ]
    assert all(one.link is None and one.drift == () for one in found)


def test_unknown_links_are_no_drift_and_pair_nothing(pci: Lookup) -> None:
    networks = reported(DEFAULT, network("net1", ips=["10.1.0.5"]), network("net2", **pci_info(VF)))
    devices = parse_devices({"PCIDEVICE_A": f"{VF},{VFIO_VF}"})
    found = merge(networks, None, devices, pci)
    assert shown(found) == [
        ("eth0", "unknown", "", ""),
        ("net1", "unknown", "", ""),
        ("net2", "sr-iov", VF, "PCIDEVICE_A[0]"),
        ("", "sr-iov", VFIO_VF, "PCIDEVICE_A[1]"),
    ]
    assert all(one.drift == () for one in found)


@pytest.mark.parametrize(
    ("device_info", "kind"),
    [
        ({"type": "vdpa", "vdpa": {"pci-address": VF, "pf-pci-address": PF}}, DeviceType.VDPA),
        ({"type": "vhost-user", "vhost-user": {"path": "/run/s"}}, DeviceType.VHOST_USER),
        ({"type": "memif", "memif": {}}, DeviceType.MEMIF),
        ({"type": "memif"}, DeviceType.MEMIF),
        ({"type": "pci", "pci": {"pci-address": VF}}, DeviceType.SR_IOV),
        ({"type": "pci", "pci": {"pci-address": PF}}, DeviceType.HOST),
        ({"type": "pci", "pci": {"pci-address": PLAIN}}, DeviceType.HOST),
        ({"type": "pci", "pci": {"pci-address": "0000:99:00.0"}}, DeviceType.UNKNOWN),
        (
            {"type": "pci", "pci": {"pci-address": "0000:99:00.1", "pf-pci-address": PF}},
            DeviceType.SR_IOV,
        ),
        ({"type": "new", "new": {}}, DeviceType.UNKNOWN),
        (None, DeviceType.UNKNOWN),
    ],
)
def test_the_device_type_follows_the_rule(
    pci: Lookup, device_info: dict[str, Any] | None, kind: DeviceType
) -> None:
    (found,) = merge(reported(network("net1", **{"device-info": device_info})), (), (), pci)
    assert found.device_type is kind


def test_a_live_link_without_a_pci_device_is_the_hosts(pci: Lookup) -> None:
    (found,) = merge(reported(network("net1")), (link(2, "net1"),), (), pci)
    assert found.device_type is DeviceType.HOST


def test_each_address_is_looked_up_once_and_only_addresses_are() -> None:
    asked: list[str] = []

    def lookup(address: str) -> None:
        asked.append(address)

    merge(
        reported(network("net1", **pci_info("../../etc")), network("net2", **pci_info(VF.upper()))),
        (link(2, "net2", VF), link(3, "net3", "../..")),
        parse_devices({"PCIDEVICE_A": f"{VF},/etc/passwd"}),
        lookup,
    )
    assert asked == [VF]
