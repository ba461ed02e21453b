"""Devices of two environments: none is lost or returned twice, and each has its origin."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import Reason, ResourceExhausted
from netutil.agent.parsers.addresses import MAX_LINK_NAME_LENGTH, is_link_name
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    MAX_NAME_LENGTH,
    AllocatedDevice,
    DeviceProblem,
)
from netutil.agent.parsers.plugin_devices import (
    af_xdp_devices_of_both,
    device_variables,
    devices_of_both,
    parse_af_xdp_devices,
    parse_qat_devices,
)

ONE, TWO, THREE = "0000:3b:02.1", "0000:3b:02.2", "0000:3b:02.3"
INFO = {ONE: {"extra": {"VFIO_TOKEN": "02bddbbf-bbb0-4d79-886b-91bad3fbb510"}}}


def addresses(devices: tuple[AllocatedDevice, ...]) -> list[tuple[str, str, bool]]:
    return [(one.variable, one.pci_address, one.from_start) for one in devices]


def test_the_qat_plugin_names_one_function_in_each_variable() -> None:
    found = parse_qat_devices({"QAT10": TWO, "QAT2": "0000:3D:01.0", "QAT0": ONE})
    assert addresses(found) == [
        ("QAT0", ONE, False),
        ("QAT2", "0000:3d:01.0", False),
        ("QAT10", TWO, False),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("QAT", ONE), ("QATX", ONE), ("QAT0_X", ONE), ("QAT0", ""), ("QAT0", " "), ("qat0", ONE)],
)
def test_other_variables_are_not_the_qat_plugins(name: str, value: str) -> None:
    assert parse_qat_devices({name: value}) == ()


@pytest.mark.parametrize("value", ["0000:b0:00.0x", "yes", f"{ONE},{TWO}", "mlx5_core.sf.4"])
def test_a_qat_value_that_is_no_address_is_kept_with_its_problem(value: str) -> None:
    (found,) = parse_qat_devices({"QAT0": f" {value} "})
    assert (found.variable, found.name, found.pci_address) == ("QAT0", value, "")
    assert found.problem is DeviceProblem.NOT_AN_ADDRESS


@given(st.text(max_size=300))
def test_any_qat_value_is_kept_unless_it_is_empty(
    value: str,
) -> None:
    found = parse_qat_devices({"QAT7": value})
    assert len(found) == bool(value.strip())
    for one in found:
        assert one.name == value.strip()[:MAX_NAME_LENGTH]
        assert bool(one.pci_address) is (one.problem is None)


def test_a_login_shell_has_what_the_container_was_started_with() -> None:
    start = {
        "PCIDEVICE_NIC": f"{ONE},{TWO}",
        "PCIDEVICE_NIC_INFO": json.dumps(INFO),
        "QAT0": THREE,
    }
    network, others = devices_of_both({"PATH": "/bin"}, start)
    assert addresses(network) == [("PCIDEVICE_NIC", ONE, True), ("PCIDEVICE_NIC", TWO, True)]
    assert network[0].info == INFO[ONE]
    assert addresses(others) == [("QAT0", THREE, True)]


def test_a_device_of_both_is_returned_once_as_the_processes_own() -> None:
    same = {"PCIDEVICE_NIC": ONE, "QAT0": TWO}
    network, others = devices_of_both(same, same)
    assert addresses(network) == [("PCIDEVICE_NIC", ONE, False)]
    assert addresses(others) == [("QAT0", TWO, False)]


def test_a_variable_that_was_changed_loses_nothing() -> None:
    network, _ = devices_of_both({"PCIDEVICE_NIC": TWO}, {"PCIDEVICE_NIC": f"{ONE},{TWO}"})
    assert sorted(addresses(network)) == [
        ("PCIDEVICE_NIC", ONE, True),
        ("PCIDEVICE_NIC", TWO, False),
    ]


def test_an_info_that_only_the_start_has_is_returned() -> None:
    start = {"PCIDEVICE_NIC": ONE, "PCIDEVICE_NIC_INFO": json.dumps(INFO)}
    ((device,), _) = devices_of_both({"PCIDEVICE_NIC": ONE}, start)
    assert device.info == INFO[ONE] and not device.from_start


def test_a_single_environment_is_returned_alone() -> None:
    network, others = devices_of_both({"PCIDEVICE_NIC": ONE, "QAT0": TWO}, None)
    assert addresses(network + others) == [("PCIDEVICE_NIC", ONE, False), ("QAT0", TWO, False)]


def links(devices: tuple[AllocatedDevice, ...]) -> list[tuple[str, int, str, bool]]:
    return [(one.variable, one.position, one.name, one.from_start) for one in devices]


def test_the_af_xdp_plugin_names_all_links_in_one_variable() -> None:
    found = parse_af_xdp_devices({"AFXDP_DEVICES": " ens1f0  ens1f1\n", "AFXDP_DEVICES_X": "a"})
    assert links(found) == [
        ("AFXDP_DEVICES", 0, "ens1f0", False),
        ("AFXDP_DEVICES", 1, "ens1f1", False),
    ]
    assert {(one.pci_address, one.problem) for one in found} == {("", None)}


def test_a_login_shell_has_the_links_of_the_containers_start() -> None:
    start = {"AFXDP_DEVICES": "ens1f0 ens1f1"}
    assert links(af_xdp_devices_of_both({"PATH": "/bin"}, start)) == [
        ("AFXDP_DEVICES", 0, "ens1f0", True),
        ("AFXDP_DEVICES", 1, "ens1f1", True),
    ]
    assert links(af_xdp_devices_of_both({"AFXDP_DEVICES": "ens1f1"}, start)) == [
        ("AFXDP_DEVICES", 0, "ens1f1", False),
        ("AFXDP_DEVICES", 0, "ens1f0", True),
    ]
    assert links(af_xdp_devices_of_both(start, None)) == links(parse_af_xdp_devices(start))


@given(st.text(max_size=600))
def test_each_word_of_af_xdp_devices_is_returned_unchanged(value: str) -> None:
    found = parse_af_xdp_devices({"AFXDP_DEVICES": value})
    assert [one.name for one in found] == [word[:MAX_NAME_LENGTH] for word in value.split()]
    assert [one.problem for one in found] == [
        None if is_link_name(word) else DeviceProblem.NOT_A_LINK_NAME for word in value.split()
    ]
    assert af_xdp_devices_of_both({}, device_variables({"AFXDP_DEVICES": value})) == tuple(
        replace(one, from_start=True) for one in found
    )


NAMED = st.lists(st.sampled_from(["ens1f0", "ens1f1", "eth0", "a/b"]), max_size=6).map(" ".join)


@given(NAMED, NAMED)
def test_both_name_the_links_that_each_names(own: str, start: str) -> None:
    both = af_xdp_devices_of_both({"AFXDP_DEVICES": own}, {"AFXDP_DEVICES": start})
    assert {one.name for one in both} == {*own.split(), *start.split()}
    assert all(one.from_start is (one.name not in own.split()) for one in both)


@pytest.mark.parametrize(
    ("own", "start"),
    [(MAX_DEVICES + 1, None), (1, MAX_DEVICES + 1), (MAX_DEVICES, -MAX_DEVICES)],
)
def test_too_many_links_are_an_error(own: int, start: int | None) -> None:
    def named(count: int) -> dict[str, str]:
        prefix = "eth" if count > 0 else "net"
        return {"AFXDP_DEVICES": " ".join(f"{prefix}{n}" for n in range(abs(count)))}

    with pytest.raises(ResourceExhausted) as caught:
        af_xdp_devices_of_both(named(own), None if start is None else named(start))
    assert caught.value.reason is Reason.TOO_MANY_DEVICES
    assert caught.value.read == "AFXDP_DEVICES"
    most = named(MAX_DEVICES)
    assert len(af_xdp_devices_of_both(most, most)) == MAX_DEVICES


@pytest.mark.parametrize("name", ["eth0", "a" * MAX_LINK_NAME_LENGTH, "...", "veth-x.100"])
def test_a_link_may_have_this_name(name: str) -> None:
    assert is_link_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a:0", "a b", "ä" * 8])
def test_no_link_can_have_this_name(name: str) -> None:
    assert not is_link_name(name)


def many(first: int) -> dict[str, str]:
    return {f"QAT{n}": f"{first:04x}:{n // 8:02x}:00.{n % 8}" for n in range(MAX_DEVICES)}


def test_too_many_devices_are_an_error() -> None:
    one_more = {**many(0), "QAT999": ONE}
    for own, start in ((one_more, None), (many(0), many(1)), (many(0), one_more)):
        with pytest.raises(ResourceExhausted) as caught:
            devices_of_both(own, start)
        assert caught.value.reason is Reason.TOO_MANY_DEVICES
    assert len(devices_of_both(many(0), many(0))[1]) == MAX_DEVICES


NAMES = st.sampled_from(["PCIDEVICE_A", "PCIDEVICE_A_INFO", "PCIDEVICE_B", "QAT0", "QAT1", "X"])
VALUES = st.sampled_from([ONE, TWO, f"{ONE},{TWO}", json.dumps(INFO), "", "mlx5_core.sf.4", "{"])
ENVIRONMENTS = st.dictionaries(NAMES, VALUES)


@given(ENVIRONMENTS, ENVIRONMENTS)
def test_both_name_what_each_names(own: dict[str, str], start: dict[str, str]) -> None:
    def names(*environments: dict[str, str]) -> set[tuple[str, str]]:
        return {
            (one.variable, one.pci_address or one.name)
            for environment in environments
            for part in devices_of_both(environment, None)
            for one in part
        }

    both = devices_of_both(own, start)
    found = [(one.variable, one.pci_address or one.name) for part in both for one in part]
    assert set(found) == names(own, start)
    for part in both:
        for one in part:
            key = (one.variable, one.pci_address or one.name)
            assert one.from_start is (key not in names(own))


@given(ENVIRONMENTS)
def test_devices_come_from_the_kept_variables(environment: dict[str, str]) -> None:
    kept = device_variables({**environment, "AFXDP_DEVICES": "ens1f0"})
    assert "X" not in kept and kept.pop("AFXDP_DEVICES") == "ens1f0"
    assert devices_of_both(kept, None) == devices_of_both(environment, None)
