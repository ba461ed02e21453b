"""Devices that a container's environment names, as the SR-IOV network device plugin writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import Reason, ResourceExhausted
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    MAX_INFO_LENGTH,
    MAX_NAME_LENGTH,
    MAX_PLACES,
    MAX_VARIABLE_LENGTH,
    DeviceProblem,
    parse_devices,
)

VF, OTHER = "0000:3b:01.0", "0000:3b:01.1"
VARIABLE = "PCIDEVICE_INTEL_COM_SRIOV"
GENERIC = {"generic": {"deviceID": VF}, "vfio": {"dev-mount": "/dev/vfio/31"}}


def with_info(text: str) -> dict[str, str]:
    return {VARIABLE: f"{VF},{OTHER}", f"{VARIABLE}_INFO": text}


def places(environment: dict[str, str]) -> list[tuple[str, int, str]]:
    return [(one.variable, one.position, one.pci_address) for one in parse_devices(environment)]


def test_devices_come_by_variable_name_then_position() -> None:
    environment = {"PCIDEVICE_B": f"{OTHER},{VF}", "PATH": "/bin", "PCIDEVICE_A": "0000:5e:00.1"}
    assert places(environment) == [
        ("PCIDEVICE_A", 0, "0000:5e:00.1"),
        ("PCIDEVICE_B", 0, OTHER),
        ("PCIDEVICE_B", 1, VF),
    ]


def test_an_address_is_spelled_as_in_sysfs() -> None:
    (found,) = parse_devices({VARIABLE: VF.upper()})
    assert (found.pci_address, found.name, found.problem) == (VF, VF.upper(), None)


def test_blanks_and_empty_places_are_no_devices() -> None:
    assert places({VARIABLE: f" {VF} ,, {OTHER},"}) == [(VARIABLE, 0, VF), (VARIABLE, 2, OTHER)]


@pytest.mark.parametrize("environment", [{}, {VARIABLE: ""}, {"PCIDEVICE_": VF}, {"PCIDEVICE": VF}])
def test_no_variable_names_no_device(environment: dict[str, str]) -> None:
    assert parse_devices(environment) == ()


def test_each_device_has_its_own_info() -> None:
    first, second = parse_devices(with_info(json.dumps({VF.upper(): GENERIC, OTHER: {}})))
    assert (first.info, first.problem) == (GENERIC, None)
    assert (second.info, second.problem) == ({}, None)


def test_a_device_that_the_info_does_not_name_has_none() -> None:
    _, second = parse_devices(with_info(json.dumps({VF: GENERIC})))
    assert (second.info, second.problem) == (None, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", DeviceProblem.INFO_NOT_JSON),
        ("", DeviceProblem.INFO_NOT_JSON),
        ('{"a":' + "1" * 5000 + "}", DeviceProblem.INFO_NOT_JSON),
        ("[]", DeviceProblem.INFO_NOT_AN_OBJECT),
        (f'"{VF}"', DeviceProblem.INFO_NOT_AN_OBJECT),
        ("null", DeviceProblem.INFO_NOT_AN_OBJECT),
        ("{" + " " * MAX_INFO_LENGTH + "}", DeviceProblem.INFO_TOO_LONG),
        ('{"a":' * 100_000, DeviceProblem.INFO_TOO_LONG),
        ('{"a":' * 40_000, DeviceProblem.INFO_NOT_PORTABLE),
    ],
)
def test_a_broken_info_takes_no_device_away(text: str, problem: DeviceProblem) -> None:
    found = parse_devices(with_info(text))
    assert [(one.pci_address, one.info, one.problem) for one in found] == [
        (VF, None, problem),
        (OTHER, None, problem),
    ]


def test_one_broken_entry_of_an_info_takes_no_other_away() -> None:
    first, second = parse_devices(with_info(json.dumps({VF: ["x"], OTHER: GENERIC})))
    assert (first.info, first.problem) == (None, DeviceProblem.INFO_NOT_AN_OBJECT)
    assert (second.info, second.problem) == (GENERIC, None)


def test_null_is_no_info() -> None:
    first, _ = parse_devices(with_info(json.dumps({VF: None})))
    assert (first.info, first.problem) == (None, None)


@pytest.mark.parametrize(
    "value",
    ["NaN", "-Infinity", "1e999", "1" * 400, r'"\ud800"', '{"\\udfff":1}', "[" * 20 + "]" * 20],
)
def test_text_that_protobuf_cannot_hold_is_left_out(value: str) -> None:
    first, second = parse_devices(with_info(f'{{"{VF}":{{"a":{value}}},"{OTHER}":{{}}}}'))
    assert (first.info, first.problem) == (None, DeviceProblem.INFO_NOT_PORTABLE)
    assert second.problem is None


def test_a_resource_whose_own_name_ends_in_info_is_no_info() -> None:
    environment = {
        "PCIDEVICE_ACME_INFO": VF,
        "PCIDEVICE_ACME_INFO_INFO": json.dumps({VF: GENERIC}),
        "PCIDEVICE_ACME": OTHER,
    }
    found = parse_devices(environment)
    assert [(one.variable, one.pci_address, one.info) for one in found] == [
        ("PCIDEVICE_ACME", OTHER, None),
        ("PCIDEVICE_ACME_INFO", VF, GENERIC),
    ]


def test_an_info_without_devices_names_none() -> None:
    assert parse_devices({"PCIDEVICE_ACME_INFO": json.dumps({VF: GENERIC})}) == ()


def test_a_subfunction_is_kept_though_it_is_no_pci_device() -> None:
    (found,) = parse_devices({"PCIDEVICE_ACME_INFO": "mlx5_core.sf.4"})
    assert (found.name, found.pci_address) == ("mlx5_core.sf.4", "")
    assert found.problem is DeviceProblem.NOT_AN_ADDRESS


def test_a_subfunction_has_its_info() -> None:
    name = "mlx5_core.sf.4"
    (found,) = parse_devices({VARIABLE: name, f"{VARIABLE}_INFO": json.dumps({name: GENERIC})})
    assert found.info == GENERIC


def test_a_broken_info_of_a_subfunction_comes_first() -> None:
    (found,) = parse_devices({VARIABLE: "mlx5_core.sf.4", f"{VARIABLE}_INFO": "{"})
    assert found.problem is DeviceProblem.INFO_NOT_JSON


def test_a_path_is_no_address() -> None:
    found = parse_devices({VARIABLE: f"../../etc,{VF}/physfn,{VF}\n{VF}"})
    assert [one.pci_address for one in found] == ["", "", ""]


def test_a_name_of_any_length_is_cut() -> None:
    (found,) = parse_devices({VARIABLE: "x" * 100_000})
    assert found.name == "x" * MAX_NAME_LENGTH


def test_so_many_devices_are_answered_and_no_more() -> None:
    most = ",".join(f"0000:{n // 256:02x}:{n % 256 // 8:02x}.{n % 8}" for n in range(MAX_DEVICES))
    assert len(parse_devices({VARIABLE: most})) == MAX_DEVICES
    with pytest.raises(ResourceExhausted) as refused:
        parse_devices({VARIABLE: most, "PCIDEVICE_Z": VF})
    assert refused.value.reason is Reason.TOO_MANY_DEVICES


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from([VF, OTHER]), inner, max_size=3)
    ),
    max_leaves=10,
)


def as_struct(info: Any) -> struct_pb2.Struct:
    return json_format.ParseDict(info, struct_pb2.Struct())


@given(json_values)
def test_any_info_loses_no_device_and_fits_protobuf(value: object) -> None:
    for info in (value, {VF: value}, {VF: {"a": value}}):
        found = parse_devices(with_info(json.dumps(info)))
        assert [one.pci_address for one in found] == [VF, OTHER]
        for one in found:
            if one.info is not None:
                sent = as_struct(one.info).SerializeToString()
                json_format.MessageToJson(struct_pb2.Struct.FromString(sent))


@given(
    st.dictionaries(
        st.from_regex(r"PCIDEVICE_[AB](_INFO){0,2}", fullmatch=True),
        st.text(max_size=40) | st.sampled_from([VF, f"{VF},{OTHER}", f'{{"{VF}":{{}}}}']),
        max_size=6,
    )
)
def test_devices_of_any_environment_are_in_order(environment: dict[str, str]) -> None:
    found = [(one.variable, one.position) for one in parse_devices(environment)]
    assert found == sorted(set(found))
    for variable, value in environment.items():
        if value in (VF, f"{VF},{OTHER}"):
            assert [p for v, p in found if v == variable] == list(range(len(value.split(","))))


def test_infos_share_one_bound_in_the_order_of_their_names() -> None:
    text = json.dumps({VF: {"a": "x" * (MAX_INFO_LENGTH // 2)}})
    environment: dict[str, str] = {}
    for name in ("PCIDEVICE_A", "PCIDEVICE_B", "PCIDEVICE_C"):
        environment |= {name: VF, f"{name}_INFO": text}
    environment["PCIDEVICE_C_INFO"] = json.dumps({VF: {}})
    first, second, third = parse_devices(environment)
    assert first.info is not None and first.problem is None
    assert second.info is None and second.problem is DeviceProblem.INFO_TOO_LONG
    assert third.info == {}


def test_a_list_of_nothing_but_commas_is_not_walked() -> None:
    with pytest.raises(ResourceExhausted) as refused:
        parse_devices({VARIABLE: "," * MAX_PLACES})
    assert refused.value.reason is Reason.TOO_MANY_DEVICES


def test_the_info_of_a_device_is_returned_once() -> None:
    info = json.dumps({VF: GENERIC, OTHER: {}})
    found = parse_devices({VARIABLE: f"{VF},{VF.upper()},{OTHER},{VF}", f"{VARIABLE}_INFO": info})
    again = (None, DeviceProblem.INFO_REPORTED_BEFORE)
    parsed = [(one.info, one.problem) for one in found]
    assert parsed == [(GENERIC, None), again, ({}, None), again]


def test_the_answer_is_no_multiple_of_the_variables() -> None:
    """103 KiB of environment took 16 seconds and 400 MiB, more than the agent has."""
    text = json.dumps({VF: {str(number): number for number in range(7500)}})
    found = parse_devices({VARIABLE: ",".join([VF] * MAX_DEVICES), f"{VARIABLE}_INFO": text})
    assert len(found) == MAX_DEVICES
    assert sum(len(one.info or ()) for one in found) == 7500


def test_a_name_that_no_resource_has_is_no_list() -> None:
    """It is in the answer once for each device of its list."""
    assert parse_devices({"PCIDEVICE_" + "X" * MAX_VARIABLE_LENGTH: VF}) == ()
    assert len(parse_devices({"PCIDEVICE_" + "X" * 317: VF})) == 1
