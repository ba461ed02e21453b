"""Device metadata: the first known version counts, and nothing half is taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.claims import (
    MAX_ATTRIBUTES,
    MAX_TEXT,
    MAX_VALUES,
    Attribute,
    ClaimDevice,
    NetworkData,
)
from netutil.agent.parsers.device_metadata import (
    MAX_BYTES,
    MAX_DEVICES,
    MAX_OBJECTS,
    DeviceMetadata,
    DeviceMetadataMalformed,
    DeviceMetadataTooLarge,
    MetadataRequest,
    parse_device_metadata,
)

from tests.support.device_metadata import (
    NETWORK,
    V1ALPHA1,
    V1BETA1,
    both,
    device,
    document,
    stream,
    vf,
)

WHOLE = DeviceMetadata(
    claim_name="nic-x7k2p",
    claim_namespace="shop",
    claim_uid="0b1c2d3e-0000-4000-8000-000000000001",
    generation=2,
    pod_claim="nic",
    requests=(
        MetadataRequest(
            name="vf",
            drivers=("sriov.example.com",),
            devices=(
                ClaimDevice(
                    pool="node-1",
                    name="0000-3b-02-1",
                    attributes=(
                        ("resource.kubernetes.io/pciBusID", Attribute(string_value="0000:3b:02.1")),
                    ),
                    network_data=NetworkData(
                        interface_name="net1",
                        ips=("10.1.0.5/24", "fd00::5/64"),
                        hardware_address="02:00:00:00:00:05",
                    ),
                ),
            ),
        ),
    ),
)
NEWER = {"apiVersion": "metadata.resource.k8s.io/v3", "kind": "DeviceMetadata", "requests": 7}


def malformed(body: bytes) -> DeviceMetadataMalformed:
    with pytest.raises(DeviceMetadataMalformed) as caught:
        parse_device_metadata(body)
    return caught.value


@pytest.mark.parametrize("versions", [(V1BETA1,), (V1ALPHA1,), (V1BETA1, V1ALPHA1)], ids=str)
def test_each_known_version_says_the_same(versions: tuple[str, ...]) -> None:
    body = both(vf(network=NETWORK), versions=versions, generation=2)
    assert parse_device_metadata(body) == WHOLE


def test_an_unknown_version_is_skipped() -> None:
    known = document(vf(network=NETWORK), version=V1ALPHA1, generation=2)
    assert parse_device_metadata(stream(NEWER, known)) == WHOLE


def test_the_first_known_version_counts() -> None:
    body = stream(document(generation=5), document(version=V1ALPHA1, generation=4))
    assert parse_device_metadata(body).generation == 5


def test_text_after_the_first_known_version_is_not_read() -> None:
    assert parse_device_metadata(stream(document()) + b'{"apiVers').generation == 1


def test_unknown_versions_alone_are_an_error() -> None:
    assert "v3" in str(malformed(stream(NEWER)))


def test_a_malformed_known_version_hides_no_later_one() -> None:
    broken = {**document(), "requests": "none"}
    error = malformed(stream(broken, document(version=V1ALPHA1)))
    assert not error.may_be_partial and "requests" in str(error)


def test_a_subrequest_keeps_its_name() -> None:
    (request,) = parse_device_metadata(both(request="nic/fast")).requests
    assert request.name == "nic/fast"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"int": -7}, Attribute(int_value=-7)),
        ({"int": 0}, Attribute(int_value=0)),
        ({"bool": False}, Attribute(bool_value=False)),
        ({"string": ""}, Attribute(string_value="")),
        ({"version": "1.2.3"}, Attribute(version_value="1.2.3")),
        ({"ints": [1, 2]}, Attribute(int_values=(1, 2))),
        ({"bools": [True]}, Attribute(bool_values=(True,))),
        ({"strings": ["a"]}, Attribute(string_values=("a",))),
        ({"versions": ["1.0.0"]}, Attribute(version_values=("1.0.0",))),
        ({"string": "a", "int": None}, Attribute(string_value="a")),
    ],
    ids=str,
)
def test_an_attribute_has_its_type(value: dict[str, Any], expected: Attribute) -> None:
    (request,) = parse_device_metadata(both(device(attributes={"a": value}))).requests
    assert request.devices[0].attributes == (("a", expected),)


def test_an_attribute_of_a_later_type_is_left_out() -> None:
    attributes = {"new": {"quantity": "1Gi"}, "old": {"int": 1}}
    (request,) = parse_device_metadata(both(device(attributes=attributes))).requests
    assert request.devices[0].attributes == (("old", Attribute(int_value=1)),)


@pytest.mark.parametrize(
    "value",
    [{}, {"int": 1, "bool": True}, {"int": "1"}, {"int": 2**63}, {"int": 1.5}, {"ints": 1}, 7],
    ids=str,
)
def test_an_attribute_without_one_value_is_an_error(value: object) -> None:
    assert not malformed(both(device(attributes={"a": value}))).may_be_partial


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "Other"},
        {"apiVersion": ""},
        {"apiVersion": None},
        {"metadata": None},
        {"metadata": {"generation": -1}},
        {"metadata": {"generation": "1"}},
        {"podClaimName": 7},
        {"requests": [{"devices": []}]},
        {"requests": [{"name": "a", "devices": [{"driver": "d", "pool": "p"}]}]},
        {"requests": [{"name": "a\ud800"}]},
    ],
    ids=str,
)
def test_an_odd_field_is_an_error(odd: dict[str, Any]) -> None:
    assert not malformed(json.dumps({**document(), **odd}).encode()).may_be_partial


@pytest.mark.parametrize("body", [b"[]", b"7", b'"a"', b"null"])
def test_only_an_object_is_taken(body: bytes) -> None:
    assert not malformed(body).may_be_partial


@pytest.mark.parametrize("body", [b"", b" \n", b"{", b"\xff", b'{"a": NaN}', b"}"])
def test_a_file_that_may_be_incomplete_is_marked(body: bytes) -> None:
    assert malformed(body).may_be_partial


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 200_000], ids=["lists", "objects"])
def test_deep_nesting_is_an_error(body: bytes) -> None:
    assert "nested" in str(malformed(body))


def test_a_long_number_costs_no_time() -> None:
    malformed(b'{"apiVersion": ' + b"9" * 500_000 + b"}")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b" " * (MAX_BYTES + 1), "bytes"),
        (stream(*[NEWER] * (MAX_OBJECTS + 1)), "objects"),
        (both(*[device()] * (MAX_DEVICES + 1)), "devices"),
        (
            json.dumps({**document(), "requests": [{"name": "a"}] * (MAX_DEVICES + 1)}).encode(),
            "devices",
        ),
        (
            both(device(attributes={str(n): {"int": n} for n in range(MAX_ATTRIBUTES + 1)})),
            "attributes",
        ),
        (both(device(attributes={"a": {"ints": [1] * (MAX_VALUES + 1)}})), "values"),
        (both(device(network={"ips": ["10.0.0.1/8"] * (MAX_VALUES + 1)})), "addresses"),
        (both(device(attributes={"a": {"string": "x" * (MAX_TEXT + 1)}})), "a text"),
        (both(device(network={"hardwareAddress": "x" * (MAX_TEXT + 1)})), "a text"),
    ],
    ids=[
        "bytes",
        "objects",
        "devices",
        "requests",
        "attributes",
        "values",
        "addresses",
        "an attribute's text",
        "an address's text",
    ],
)
def test_more_than_the_limit_is_refused(body: bytes, what: str) -> None:
    with pytest.raises(DeviceMetadataTooLarge, match=what):
        parse_device_metadata(body)


def test_a_file_as_large_as_the_limit_is_read() -> None:
    most = device(attributes={str(n): {"ints": [n] * MAX_VALUES} for n in range(MAX_ATTRIBUTES)})
    (request,) = parse_device_metadata(both(most, *[device()] * (MAX_DEVICES - 1))).requests
    assert len(request.devices) == MAX_DEVICES
    assert len(request.devices[0].attributes or ()) == MAX_ATTRIBUTES


@given(st.integers(min_value=0))
def test_no_part_of_a_file_is_another_answer(cut: int) -> None:
    body = both(vf(network=NETWORK), generation=2)
    part = body[: cut % len(body)]
    try:
        assert parse_device_metadata(part) == WHOLE
    except DeviceMetadataMalformed as error:
        assert error.may_be_partial


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["kind", "apiVersion", "metadata", "podClaimName", "requests"]


@given(st.sampled_from(FIELDS), JSON)
def test_any_value_of_a_field_is_read_or_refused(field: str, value: object) -> None:
    try:
        found = parse_device_metadata(json.dumps({**document(vf()), field: value}).encode())
    except (DeviceMetadataMalformed, DeviceMetadataTooLarge):
        return
    assert isinstance(found, DeviceMetadata)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
VALUES = st.one_of(
    st.fixed_dictionaries({"int": st.integers(-(2**63), 2**63 - 1)}),
    st.fixed_dictionaries({"bool": st.booleans()}),
    st.fixed_dictionaries({"string": NAMES}),
    st.fixed_dictionaries({"versions": st.lists(NAMES, min_size=1, max_size=3)}),
)


@given(st.dictionaries(NAMES, VALUES, max_size=5), st.integers(0, 2**63 - 1))
def test_every_attribute_comes_back(attributes: dict[str, Any], generation: int) -> None:
    found = parse_device_metadata(both(device(attributes=attributes), generation=generation))
    assert found.generation == generation
    read = {}
    for name, attribute in found.requests[0].devices[0].attributes or ():
        fields = zip(
            attribute.__struct_encode_fields__,
            (getattr(attribute, one) for one in attribute.__struct_fields__),
            strict=True,
        )
        read[name] = {
            key: list(one) if isinstance(one, tuple) else one
            for key, one in fields
            if one is not None
        }
    assert read == attributes


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with pytest.raises((DeviceMetadataMalformed, DeviceMetadataTooLarge)):
        parse_device_metadata(body)
