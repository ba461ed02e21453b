"""PCI devices as the host's /sys shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from netutil.agent.facts.pci import read_network_devices, read_pci
from netutil.agent.parsers.pci import PciInfo

from tests.support.nodes.sriov_node import (
    ACCELERATOR,
    NO_NODE,
    PF,
    PLAIN,
    SECOND_VF,
    UNBOUND_VF,
    VFIO_VF,
    VFS,
    build_sriov_node,
)


@pytest.fixture
def root(tmp_path: Path) -> str:
    return build_sriov_node(tmp_path)


def test_a_physical_function_has_its_number_of_possible_vfs(root: str) -> None:
    assert read_pci(root, PF) == PciInfo(
        address=PF,
        driver="ice",
        vendor_id="0x8086",
        device_id="0x1592",
        numa_node=0,
        iommu_group=20,
        max_vfs=8,
        class_code="0x020000",
    )


def test_a_virtual_function_names_its_physical_one_and_number(root: str) -> None:
    assert read_pci(root, SECOND_VF) == PciInfo(
        address=SECOND_VF,
        driver="iavf",
        vendor_id="0x8086",
        device_id="0x1889",
        numa_node=0,
        pf_address=PF,
        vf_index=1,
        iommu_group=31,
        max_vfs=8,
        class_code="0x020000",
    )


def test_the_driver_is_the_one_that_is_bound(root: str) -> None:
    found = [read_pci(root, address) for address in (VFIO_VF, UNBOUND_VF)]
    assert [one and one.driver for one in found] == ["vfio-pci", ""]


def test_a_device_without_sriov_has_no_most_functions(root: str) -> None:
    found = read_pci(root, PLAIN)
    assert found is not None
    assert (found.numa_node, found.pf_address, found.vf_index, found.max_vfs) == (1, "", None, None)


def test_minus_one_is_no_numa_node(root: str) -> None:
    assert read_pci(root, NO_NODE) == PciInfo(
        NO_NODE, vendor_id="0x8086", device_id="0xa323", class_code="0x0c8000"
    )


def test_the_class_says_whether_a_device_is_a_network_controller(root: str) -> None:
    found = [read_pci(root, address) for address in (VFIO_VF, NO_NODE, ACCELERATOR)]
    assert [one and one.is_network for one in found] == [True, False, False]
    assert PciInfo(PF).is_network is None


def test_a_device_that_the_host_does_not_have_is_none(root: str) -> None:
    assert read_pci(root, "0000:3b:01.7") is None


@pytest.mark.parametrize("address", [PF.upper(), f"0000{PF}"])
def test_an_address_is_found_in_any_spelling(root: str, address: str) -> None:
    found = read_pci(root, address)
    assert found is not None and found.address == PF


@pytest.mark.parametrize(
    "address",
    ["", ".", "..", "../devices/0000:3b:00.0", "0000:3b:00.0/physfn", "secret", "3b:00.0"],
)
def test_an_invalid_address_reaches_no_path(root: str, address: str) -> None:
    devices = Path(root, "sys/bus/pci/devices")
    (devices / "secret").mkdir()
    (devices / "3b:00.0").mkdir()
    assert read_pci(root, address) is None


def test_links_are_not_followed_out_of_the_tree(root: str, tmp_path: Path) -> None:
    device = Path(root, "sys/bus/pci/devices", PLAIN)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/sriov_totalvfs").write_text("9\n", encoding="ascii")
    (device / "physfn").symlink_to(tmp_path / "elsewhere")
    found = read_pci(root, PLAIN)
    assert found is not None
    assert (found.pf_address, found.max_vfs) == ("", None)


def test_a_function_whose_physical_one_went_away_has_no_number(root: str) -> None:
    os.unlink(Path(root, "sys/bus/pci/devices", PF))
    found = read_pci(root, SECOND_VF)
    assert found is not None
    assert (found.pf_address, found.vf_index, found.max_vfs) == (PF, None, None)


def test_devices_of_this_machine_can_be_read() -> None:
    devices = Path("/sys/bus/pci/devices")
    names = sorted(os.listdir(devices)) if devices.is_dir() else []
    if not names:
        pytest.skip("this machine has no PCI devices")
    for name in names:
        found = read_pci("/", name)
        assert found is not None
        assert found.vendor_id == (devices / name / "vendor").read_text().strip()


def test_network_devices_are_those_of_their_class_by_address(root: str) -> None:
    found = read_network_devices(root)
    assert [one.pci.address for one in found] == [PF, *VFS, PLAIN]
    assert [one.pci for one in found] == [read_pci(root, one.pci.address) for one in found]
    assert {one.pci.address: one.interfaces for one in found if one.interfaces} == {PF: ("ens1f0",)}


def test_a_node_without_pci_has_no_network_devices(tmp_path: Path) -> None:
    assert read_network_devices(str(tmp_path)) == ()
