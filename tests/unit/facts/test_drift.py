"""The entry of an interface names each difference between the report and the kernel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from netutil.agent.facts.drift import Drift
from netutil.agent.facts.interfaces import merge
from netutil.agent.facts.links import DefaultRoute, Link
from netutil.agent.facts.network import read_networks
from netutil.agent.facts.pci import read_pci
from netutil.agent.parsers.environment import parse_devices
from netutil.agent.parsers.pci import PciInfo

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

ABSENT = "0000:99:00.0"


@pytest.fixture
def pci(tmp_path: Path) -> Lookup:
    return partial(read_pci, build_sriov_node(tmp_path))


def drift(pci: Lookup, found: Link | None, **fields: Any) -> tuple[Drift, ...]:
    """Return the drift of an interface net1 that was reported with these fields."""
    links = (found,) if found else ()
    return merge(reported(network("net1", **fields)), links, (), pci)[0].drift


def test_equal_values_are_no_drift(pci: Lookup) -> None:
    live = link(2, "net1", VF, "10.1.0.5/24", "fd00::5/64")
    same = {"mac": "02:00:00:00:00:01", "mtu": 1500, "ips": ["10.1.0.5", "fd00:0::0005/128"]}
    assert drift(pci, live, **same, **pci_info(VF)) == ()


def test_a_zone_is_no_part_of_an_address(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1", "", "fe80::5/64"), ips=["fe80::5%net1"]) == ()


def test_an_unreported_value_is_no_drift(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1", VF, "10.1.0.5/24")) == ()


def test_a_mac_is_the_same_in_upper_case(pci: Lookup) -> None:
    live = Link(index=2, name="net1", mac="aa:bb:cc:dd:ee:ff")
    assert drift(pci, live, mac="AA:BB:CC:DD:EE:FF") == ()


INFINIBAND = "00:00:10:49:fe:80:00:00:00:00:00:00:0c:42:a1:03:00:1b:c0:02"


@pytest.mark.parametrize(
    "same",
    [
        INFINIBAND.upper(),
        "80:00:01:07" + INFINIBAND[11:],  # other flags and another queue pair
        INFINIBAND[:12] + "fe:80:00:00:00:00:00:01:" + INFINIBAND[36:],  # another subnet
        "0c:42:a1:03:00:1b:c0:02",  # the GUID alone
        "0C-42-A1-03-00-1B-C0-02",
    ],
)
def test_infiniband_links_are_compared_by_their_guid(pci: Lookup, same: str) -> None:
    live = Link(index=2, name="net1", mac=INFINIBAND)
    assert drift(pci, live, mac=same) == ()


def test_another_guid_is_drift(pci: Lookup) -> None:
    live = Link(index=2, name="net1", mac=INFINIBAND)
    for other in (INFINIBAND[:-1] + "3", "0c:42:a1:03:00:1b:c0:03", "a1:03:00:1b:c0:02"):
        assert drift(pci, live, mac=other) == (Drift("mac", other, INFINIBAND),)


def test_a_missing_link_says_only_that(pci: Lookup) -> None:
    fields = {"mac": "02:00:00:00:00:09", "mtu": 9000, "ips": ["10.1.0.5"]}
    assert drift(pci, None, **fields) == (Drift("link", "net1"),)


def test_a_changed_mac_and_mtu_are_drift_with_both_values(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1"), mac="02:00:00:00:00:09", mtu=9000) == (
        Drift("mac", "02:00:00:00:00:09", "02:00:00:00:00:01"),
        Drift("mtu", "9000", "1500"),
    )


def test_a_missing_address_is_drift_beside_those_present(pci: Lookup) -> None:
    live = link(2, "net1", "", "10.1.0.5/24", "10.1.0.7/24")
    assert drift(pci, live, ips=["10.1.0.5/24", "10.1.0.6/24", "not-an-ip"]) == (
        Drift("ips", "10.1.0.6/24, not-an-ip", "10.1.0.5/24, 10.1.0.7/24"),
    )


def routed(*gateways: str) -> Link:
    routes = tuple(DefaultRoute(one, 6 if ":" in one else 4) for one in gateways)
    return structs.replace(link(2, "net1"), default_routes=routes)


def test_a_gateway_that_no_default_route_goes_over_is_drift(pci: Lookup) -> None:
    assert drift(pci, routed("10.1.0.1", "fd00:0::1"), gateway=["10.1.0.1", "fd00::1"]) == ()
    assert drift(pci, routed("10.1.0.2"), gateway=["10.1.0.1", "10.1.0.2"]) == (
        Drift("gateway", "10.1.0.1", "10.1.0.2"),
    )
    assert drift(pci, link(2, "net1"), gateway=["fd00::1"]) == (Drift("gateway", "fd00::1"),)


def test_a_gateway_that_is_no_address_is_passed_over(pci: Lookup) -> None:
    assert drift(pci, routed(""), gateway=["<nil>"]) == ()


def test_a_pod_ip_that_no_link_has_is_drift(pci: Lookup) -> None:
    networks = read_networks({}, ("10.0.0.7",), pod="shop/web")
    first, second = merge(networks, (link(2, "eth0", "", "10.0.0.8/24"),), (), pci)
    assert (first.name, first.link, first.drift) == ("", None, (Drift("ips", "10.0.0.7"),))
    assert (second.name, second.drift) == ("eth0", ())


def test_a_reported_device_that_the_host_does_not_have_is_drift(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1"), **pci_info(ABSENT)) == (Drift("pci-address", ABSENT),)


def test_a_reported_device_that_is_not_the_links_own_is_drift(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1", SECOND_VF), **pci_info(VF)) == (
        Drift("pci-address", VF, SECOND_VF),
    )


def test_a_physical_function_other_than_the_devices_is_drift(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1"), **pci_info(VF, **{"pf-pci-address": PF.upper()})) == ()
    assert drift(pci, link(2, "net1"), **pci_info(VF, **{"pf-pci-address": PLAIN})) == (
        Drift("pf-pci-address", PLAIN, PF),
    )
    # As plugins write a subfunction: its parent is all that there is of it on the bus.
    assert drift(pci, link(2, "net1"), **pci_info(PF, **{"pf-pci-address": PF})) == ()


def test_an_address_in_another_spelling_is_no_drift(pci: Lookup) -> None:
    assert drift(pci, link(2, "net1", VF), **pci_info(VF.upper())) == ()


@pytest.mark.parametrize("own", ["", VF])
def test_a_reported_address_that_is_none_is_drift(pci: Lookup, own: str) -> None:
    expected = (Drift("pci-address", "../../etc", own),)
    assert drift(pci, link(2, "net1", own), **pci_info("../../etc")) == expected


def test_an_allocated_device_that_the_host_lacks_is_drift(pci: Lookup) -> None:
    (found,) = merge(None, (), parse_devices({"PCIDEVICE_A": ABSENT}), pci)
    assert (found.pci, found.drift) == (None, (Drift("pci-address", ABSENT),))


def test_a_links_own_device_that_the_host_does_not_show_is_drift(pci: Lookup) -> None:
    (found,) = merge(None, (link(2, "net1", ABSENT),), (), pci)
    assert (found.pci, found.drift) == (None, (Drift("pci-address", ABSENT),))


@pytest.mark.parametrize(
    "device_info",
    [
        {"type": "vhost-user", "vhost-user": {"mode": "client", "path": "/run/s"}},
        {"type": "memif", "memif": {"role": "slave", "path": "/run/m", "mode": "ethernet"}},
        {
            "type": "vdpa",
            "vdpa": {"driver": "vhost", "path": "/dev/vhost-vdpa-0", "pci-address": VF},
        },
        {"type": "pci", "pci": {"pci-address": VFIO_VF}},
    ],
)
def test_a_device_in_user_space_needs_no_link(pci: Lookup, device_info: dict[str, Any]) -> None:
    assert drift(pci, None, mac="02:00:00:00:00:09", **{"device-info": device_info}) == ()


@pytest.mark.parametrize(
    "device_info",
    [
        {"type": "vdpa", "vdpa": {"driver": "virtio", "pci-address": VF}},
        {"type": "pci", "pci": {"pci-address": VF}},
        {"type": "pci", "pci": {"pci-address": UNBOUND_VF}},
    ],
)
def test_a_device_of_the_kernel_needs_its_link(pci: Lookup, device_info: dict[str, Any]) -> None:
    assert drift(pci, None, **{"device-info": device_info}) == (Drift("link", "net1"),)


@pytest.mark.parametrize(
    ("driver", "missing"),
    [
        ("vfio-pci", False),
        ("mlx5_vfio_pci", False),
        ("igb_uio", False),
        ("uio_pci_generic", False),
        ("mlx5_core", True),
        ("", True),
    ],
)
def test_the_driver_says_whether_a_paired_device_has_a_link(driver: str, missing: bool) -> None:
    devices = parse_devices({"PCIDEVICE_A": VFIO_VF})
    pci = partial(PciInfo, driver=driver, class_code="0x020000")
    (found,) = merge(reported(network("net1")), (), devices, pci)
    assert found.drift == ((Drift("link", "net1"),) if missing else ())


def test_a_link_that_a_device_in_user_space_has_is_compared(pci: Lookup) -> None:
    info = {"type": "vhost-user", "vhost-user": {}}
    found = drift(pci, link(2, "net1"), mtu=9000, **{"device-info": info})
    assert found == (Drift("mtu", "9000", "1500"),)


def test_a_missing_device_is_drift_in_a_host_network_pod(pci: Lookup) -> None:
    networks = reported(network("net1", mtu=9000, **pci_info(ABSENT)))
    (found,) = merge(networks, (link(2, "net1"),), (), pci, host_network=True)
    assert found.drift == (Drift("pci-address", ABSENT),)
