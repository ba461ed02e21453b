"""Devices that no source gives to a network: what is inferred, what is guessed, what is left."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from netutil.agent.facts.interfaces import DeviceType, Interface, TypeSource, merge
from netutil.agent.facts.pairing import DeviceSource, pair
from netutil.agent.facts.pci import read_pci
from netutil.agent.parsers.environment import AllocatedDevice, parse_devices
from netutil.agent.parsers.network_status import NetworkStatus
from netutil.agent.parsers.pci import PciInfo

from tests.support.nodes.sriov_node import (
    ACCELERATOR,
    PF,
    PLAIN,
    UNBOUND_VF,
    VF,
    VFIO_VF,
    build_sriov_node,
)
from tests.unit.facts.reports import Lookup, link, network, pci_info, reported

ELIMINATION, RESOURCE_NAME = DeviceSource.ELIMINATION, DeviceSource.RESOURCE_NAME
ORDER, NONE = DeviceSource.ORDER, DeviceSource.NONE


@pytest.fixture
def pci(tmp_path: Path) -> Lookup:
    return partial(read_pci, build_sriov_node(tmp_path))


def devices(**variables: int) -> tuple[AllocatedDevice, ...]:
    """So many devices of each resource."""
    return tuple(
        AllocatedDevice(f"PCIDEVICE_{name}", position, name, f"{name}{position}")
        for name, number in variables.items()
        for position in range(number)
    )


def paired(names: str, **variables: int) -> list[tuple[str, DeviceSource]]:
    """The device of each network, "" for none, and its source; networks are of these names."""
    networks = [NetworkStatus(f"shop/{name}") for name in names.split()]
    found = pair(networks, devices(**variables))
    return [(one.device.pci_address if one.device else "", one.source) for one in found]


def summary(interfaces: tuple[Interface, ...]) -> list[tuple[str, str, DeviceSource]]:
    return [(one.name, one.pci.address if one.pci else "", one.device_source) for one in interfaces]


def test_a_network_gets_the_network_controller_as_its_device(pci: Lookup) -> None:
    found = merge(
        reported(network("net1")),
        (),
        parse_devices({"PCIDEVICE_A_ACC": ACCELERATOR, "PCIDEVICE_NIC": VFIO_VF}),
        pci,
    )
    assert summary(found) == [
        ("net1", VFIO_VF, ELIMINATION),
        ("", ACCELERATOR, DeviceSource.ENVIRONMENT),
    ]
    assert found[0].device_reason.startswith("inferred: ")


def test_an_accelerator_alone_is_given_to_no_network(pci: Lookup) -> None:
    found = merge(reported(network("net1")), (), parse_devices({"PCIDEVICE_A": ACCELERATOR}), pci)
    assert summary(found) == [("net1", "", NONE), ("", ACCELERATOR, DeviceSource.ENVIRONMENT)]


def test_a_device_of_unknown_class_is_given_to_no_network() -> None:
    found = merge(reported(network("net1")), (), parse_devices({"PCIDEVICE_A": VF}), PciInfo)
    assert summary(found) == [("net1", "", NONE), ("", VF, DeviceSource.ENVIRONMENT)]


def test_a_device_that_a_report_or_a_link_names_is_a_fact(pci: Lookup) -> None:
    found = merge(
        reported(network("net1", **pci_info(VFIO_VF)), network("net2")),
        (link(2, "net2", VF),),
        parse_devices({"PCIDEVICE_A": f"{VF},{VFIO_VF}"}),
        pci,
    )
    assert summary(found) == [
        ("net1", VFIO_VF, DeviceSource.DEVICE_INFO),
        ("net2", VF, DeviceSource.LINK),
    ]
    assert [one.device_reason for one in found] == ["", ""]


def test_a_device_of_no_pci_bus_has_its_source_too(pci: Lookup) -> None:
    memif = {"device-info": {"type": "memif", "memif": {"path": "/run/m"}}}
    part = structs.replace(link(3, "net2", "mlx5_core.sf.4"), parent_device_bus="auxiliary")
    veth = structs.replace(link(4, "eth0"), kind="veth")
    found = merge(reported(network("net1", **memif)), (part, veth), (), pci)
    assert summary(found) == [
        ("net1", "", DeviceSource.DEVICE_INFO),
        ("net2", "", DeviceSource.LINK),
        ("eth0", "", NONE),
    ]


def test_a_device_without_a_kernel_driver_comes_first(
    pci: Lookup,
) -> None:
    found = merge(
        reported(network("net1")), (), parse_devices({"PCIDEVICE_A": f"{VF},{VFIO_VF}"}), pci
    )
    assert summary(found) == [
        ("net1", VFIO_VF, ELIMINATION),
        ("", VF, DeviceSource.ENVIRONMENT),
    ]


@pytest.mark.parametrize(
    ("names", "variables", "expected"),
    [
        ("a", {"X": 1}, [("X0", ELIMINATION)]),
        ("a", {"X": 2}, [("X0", ORDER)]),
        ("a", {"X": 1, "Y": 1}, [("X0", ORDER)]),
        ("a b", {"X": 1, "Y": 1}, [("X0", ORDER), ("Y0", ORDER)]),
        ("a b", {"X": 2}, [("X0", ORDER), ("X1", ORDER)]),
        ("a b a", {"X": 1, "Y": 2}, [("Y0", ORDER), ("X0", ELIMINATION), ("Y1", ORDER)]),
        ("a b", {"VENDOR_COM_B": 1, "Y": 1}, [("Y0", ORDER), ("VENDOR_COM_B0", RESOURCE_NAME)]),
        ("fast-net", {"X": 1, "C_FAST_NET": 1}, [("C_FAST_NET0", RESOURCE_NAME)]),
        ("b", {"V_B": 2}, [("V_B0", ORDER)]),
        ("b", {"V_B": 1}, [("V_B0", ELIMINATION)]),
        ("b b", {"V_B": 2, "X": 2}, [("V_B0", ORDER), ("V_B1", ORDER)]),
        ("a b", {"X": 2, "Y": 1}, [("X0", ORDER), ("X1", ORDER)]),
        ("b", {"V_B": 1, "W_B": 1}, [("V_B0", ORDER)]),
        ("a a", {"X": 1, "Y": 1}, [("", NONE), ("", NONE)]),
        ("a b", {"X": 1}, [("", NONE), ("", NONE)]),
        ("a", {}, [("", NONE)]),
        ("", {"X": 1}, []),
    ],
)
def test_deciding_hints_are_used_and_others_marked(
    names: str, variables: dict[str, int], expected: list[tuple[str, DeviceSource]]
) -> None:
    assert paired(names, **variables) == expected


def test_networks_without_a_name_need_not_share_a_resource() -> None:
    found = pair([NetworkStatus(), NetworkStatus()], devices(X=1, Y=1))
    assert [one.device and one.device.pci_address for one in found] == ["X0", "Y0"]


def test_too_few_devices_are_said_with_both_numbers() -> None:
    first, second = pair([NetworkStatus("a"), NetworkStatus("b")], devices(X=1))
    assert first == second
    assert "2 reported networks" in first.reason and "1 network devices" in first.reason
    (alone,) = pair([NetworkStatus("a")], ())
    assert alone.reason == ""


def test_a_reason_is_not_repeated_for_thousands_of_networks() -> None:
    found = pair([NetworkStatus("a")] * 10_000, devices(X=1))
    assert {one.reason for one in found} == {""}


@given(
    st.lists(st.sampled_from(["", "a/x", "a/y", "b/x"]), max_size=8),
    st.dictionaries(st.sampled_from(["X", "V_Y", "Z"]), st.integers(0, 4)),
)
def test_no_device_is_given_twice_and_a_name_has_one_resource(
    names: list[str], variables: dict[str, int]
) -> None:
    found = pair([NetworkStatus(name) for name in names], devices(**variables))
    assert len(found) == len(names)
    given_away = [one.device for one in found if one.device]
    assert len(given_away) == len(set(map(id, given_away)))
    for name in set(names) - {""}:
        its = [one for other, one in zip(names, found, strict=True) if other == name]
        assert len({one.device and one.device.variable for one in its}) == 1
    for one in found:
        assert (one.device is None) == (one.source is NONE)
        assert one.device is None or one.reason


def typed(info: PciInfo) -> tuple[DeviceType, TypeSource]:
    (found,) = merge(None, (), parse_devices({"PCIDEVICE_A": VF}), lambda _: info)
    return found.device_type, found.type_source


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        # Inside a virtual machine: no physfn.
        (PciInfo(VF, "vfio-pci", "0x8086", "0x1889"), (DeviceType.SR_IOV, TypeSource.DEVICE_ID)),
        (PciInfo(VF, "iavf", "0x8086", "0xffff"), (DeviceType.SR_IOV, TypeSource.DEVICE_ID)),
        (PciInfo(VF, "mlx5_core", "0x15b3", "0x101e"), (DeviceType.SR_IOV, TypeSource.DEVICE_ID)),
        (PciInfo(VF, "vfio-pci", "0x1af4", "0x1041"), (DeviceType.UNKNOWN, TypeSource.NONE)),
        (PciInfo(VF, "virtio-pci", "0x1af4", "0x1041"), (DeviceType.UNKNOWN, TypeSource.NONE)),
        (PciInfo(VF), (DeviceType.UNKNOWN, TypeSource.NONE)),
        # What a physical function shows.
        (PciInfo(VF, "ice", "0x8086", "0x1592", max_vfs=8), (DeviceType.HOST, TypeSource.SYSFS)),
        (PciInfo(VF, "mlx5_core", "0x15b3", "0x1017"), (DeviceType.HOST, TypeSource.DEVICE_ID)),
        # Never the host's, whatever it is.
        (
            PciInfo(VF, "vfio-pci", "0x8086", "0x1592", max_vfs=8),
            (DeviceType.UNKNOWN, TypeSource.NONE),
        ),
        (PciInfo(VF, "igb_uio", "0x15b3", "0x1017"), (DeviceType.UNKNOWN, TypeSource.NONE)),
        # physfn says it outright, of an id that says nothing or something else.
        (PciInfo(VF, "", "0x1234", "0x1", pf_address=PF), (DeviceType.SR_IOV, TypeSource.SYSFS)),
    ],
)
def test_a_device_without_physfn_is_what_its_ids_prove(
    info: PciInfo, expected: tuple[DeviceType, TypeSource]
) -> None:
    assert typed(info) == expected


@pytest.mark.parametrize("kind", ["", "veth"])
def test_a_hardware_link_of_an_old_kernel_is_not_the_hosts(kind: str, pci: Lookup) -> None:
    live = (structs.replace(link(2, "net1"), kind=kind),)
    (found,) = merge(reported(network("net1")), live, (), pci, parents_are_named=False)
    known = (DeviceType.HOST, TypeSource.LINK) if kind else (DeviceType.UNKNOWN, TypeSource.NONE)
    assert (found.device_type, found.type_source) == known
    (found,) = merge(reported(network("net1")), live, (), pci)
    assert (found.device_type, found.type_source) == (DeviceType.HOST, TypeSource.LINK)


def test_a_kernels_device_is_not_paired_if_links_name_no_device(
    pci: Lookup,
) -> None:
    variables = parse_devices({"PCIDEVICE_A": f"{VF},{PLAIN}"})
    networks = reported(network("net1"), network("net2"))
    found = merge(networks, (link(2, "net2"),), variables, pci, parents_are_named=False)
    assert [one.device_source for one in found[:2]] == [NONE, NONE]
    found = merge(networks, (link(2, "net2"),), variables, pci)
    assert found[0].device_source is ORDER


def test_an_unreadable_device_hides_no_other_and_is_no_drift(pci: Lookup) -> None:
    def look(address: str) -> PciInfo | None:
        if address == VF:
            raise PermissionError(13, "Permission denied")
        return pci(address)

    found = merge(
        reported(network("net1", **pci_info(VF)), network("net2", **pci_info(VFIO_VF))),
        (link(2, "eth0"),),
        parse_devices({"PCIDEVICE_A": f"{VF},{VFIO_VF},{UNBOUND_VF}"}),
        look,
    )
    assert summary(found) == [
        ("net1", "", DeviceSource.DEVICE_INFO),
        ("net2", VFIO_VF, DeviceSource.DEVICE_INFO),
        ("eth0", "", NONE),
        ("", UNBOUND_VF, DeviceSource.ENVIRONMENT),
    ]
    assert found[0].drift == ()
