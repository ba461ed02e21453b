"""From the network-status annotation to attachments, or to the place where it breaks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.network_status import DEVICE_FIELDS, NetworkStatus, parse_network_status

from tests.support.annotations import EXTENSIONS, OTHER_DEVICE_TYPE, REAL_WORLD

READ = "annotation k8s.v1.cni.cncf.io/network-status of pod telco/upf-0"


def parse(text: str) -> tuple[NetworkStatus, ...]:
    return parse_network_status(text, read=READ)


def refusal(text: str) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as refused:
        parse(text)
    return refused.value


@pytest.mark.parametrize("case", REAL_WORLD)
def test_a_real_annotation_is_carried_whole(case: str) -> None:
    text, expected = REAL_WORLD[case]
    assert parse(text) == expected


def test_unspecified_keys_are_preserved_in_place() -> None:
    (status,) = parse(EXTENSIONS)
    assert status.extensions == {
        "com.example.vlan": 105,
        "com.example.path": {"spine": ["s1", None, True, 1.5]},
        "com.example.nothing": None,
    }
    assert status.device_info is not None
    assert status.device_info.extensions == {"com.example.slot": "7"}
    assert status.device_info.devices["pci"].extensions == {"com.example.queues": [1, 2]}


def test_a_device_of_an_unknown_type_is_preserved() -> None:
    (status,) = parse(OTHER_DEVICE_TYPE)
    assert status.device_info is not None
    assert (status.device_info.type, status.device_info.devices) == ("com.example.dpu", {})
    assert status.device_info.extensions == {"com.example.dpu": {"port": 3}}


@pytest.mark.parametrize(
    "key", ["name", "interface", "mac", "ips", "default", "mtu", "gateway", "dns", "device-info"]
)
def test_null_is_as_if_the_key_were_not_there(key: str) -> None:
    assert parse(json.dumps([{key: None}])) == (NetworkStatus(),)


def test_a_repeated_keys_last_value_counts_as_in_the_plugin() -> None:
    (status,) = parse('[{"interface": "net1", "interface": "net2"}]')
    assert status.interface == "net2"


@pytest.mark.parametrize("mtu", [0, 1500, 65536, 2**32 - 1])
def test_a_present_mtu_differs_from_none(mtu: int) -> None:
    assert parse(json.dumps([{"mtu": mtu}]))[0].mtu == mtu


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


# What is broken, and where the error must say that it is.
BROKEN: dict[str, tuple[str, str]] = {
    "empty": ("", "line 1, column 1"),
    "blank": (" \n ", "line 2, column 2"),
    "cut within a string": ('[{"name": "cbr', "line 1, column 11"),
    "cut within an object": ('[{"name": "cbr0",', "line 1, column 18"),
    "cut before the end of the list": ('[{"name": "cbr0"}', "line 1, column 18"),
    "cut on a later line": ('[{\n  "name": "a",\n  "ips": [', "line 3, column 11"),
    "two documents": ("[] []", "line 1, column 4"),
    "single quotes": ("[{'name': 'a'}]", "line 1, column 3"),
    "a comma too many": ('[{"name": "a"},]', "line 1, column 16"),
    "a comment": ('[] // "nothing"', "line 1, column 4"),
    "YAML": ("- name: cbr0\n  interface: eth0\n", "line 1, column 1"),
    "a byte order mark": ("\ufeff[]", "line 1, column 1"),
    "a raw newline in a string": ('[{"name": "a\nb"}]', "line 1, column 13"),
    "null": ("null", "the annotation"),
    "an object": ('{"name": "cbr0", "interface": "eth0"}', "the annotation"),
    "a string": ('"[]"', "the annotation"),
    "a number": ("0", "the annotation"),
    "false": ("false", "the annotation"),
    "an attachment that is null": ("[null]", "[0]"),
    "an attachment that is a string": ('[{}, "default/macvlan"]', "[1]"),
    "an attachment that is a list": ("[{}, {}, []]", "[2]"),
    "name": ('[{"name": 7}]', "[0].name"),
    "interface": ('[{}, {"interface": ["net1"]}]', "[1].interface"),
    "mac": ('[{"mac": 128}]', "[0].mac"),
    "ips is one address": ('[{"ips": "10.0.0.1"}]', "[0].ips"),
    "ips is an object": ('[{"ips": {"0": "10.0.0.1"}}]', "[0].ips"),
    "one of the ips": ('[{"ips": ["10.0.0.1", 10]}]', "[0].ips[1]"),
    "one of the ips is null": ('[{"ips": [null]}]', "[0].ips[0]"),
    "default is text": ('[{"default": "true"}]', "[0].default"),
    "default is a number": ('[{"default": 1}]', "[0].default"),
    "mtu is text": ('[{"mtu": "1500"}]', "[0].mtu"),
    "mtu is a fraction": ('[{"mtu": 1500.5}]', "[0].mtu"),
    "mtu is true": ('[{"mtu": true}]', "[0].mtu"),
    "mtu is negative": ('[{"mtu": -1}]', "[0].mtu"),
    "mtu is too large": ('[{"mtu": 4294967296}]', "[0].mtu"),
    "mtu has 5000 digits": (f'[{{"mtu": {"9" * 5000}}}]', "[0].mtu"),
    "gateway": ('[{"gateway": "10.0.0.1"}]', "[0].gateway"),
    "one of the gateways": ('[{"gateway": [{}]}]', "[0].gateway[0]"),
    "dns is a list": ('[{"dns": []}]', "[0].dns"),
    "name servers": ('[{"dns": {"nameservers": "10.0.0.2"}}]', "[0].dns.nameservers"),
    "one name server": ('[{"dns": {"nameservers": [53]}}]', "[0].dns.nameservers[0]"),
    "domain": ('[{"dns": {"domain": []}}]', "[0].dns.domain"),
    "search": ('[{"dns": {"search": {}}}]', "[0].dns.search"),
    "options": ('[{"dns": {"options": ["ndots:2", 2]}}]', "[0].dns.options[1]"),
    "device-info": ('[{"device-info": "0000:18:02.5"}]', "[0].device-info"),
    "its type": ('[{"device-info": {"type": 1}}]', "[0].device-info.type"),
    "its version": ('[{"device-info": {"version": 1.0}}]', "[0].device-info.version"),
    "a NaN": ('[{"mtu": NaN}]', "[0].mtu"),
    "a NaN under a key of a vendor": ('[{"com.example.x": [0, NaN]}]', "[0].com.example.x[1]"),
    "infinity": ('[{}, {"com.example.x": -Infinity}]', "[1].com.example.x"),
    "a number past every double": ('[{"com.example.x": 1e999}]', "[0].com.example.x"),
    "a lone surrogate in a value": ('[{"name": "net\\ud800"}]', "[0].name"),
    "a lone surrogate in a list": ('[{"ips": ["a", "\\udc00"]}]', "[0].ips[1]"),
    "a lone surrogate in a key": ('[{"x": {"\\ud8ff": 1}}]', "a key of [0].x"),
    "a lone surrogate of a vendor": ('[{"x": {"y": ["\\udfff"]}}]', "[0].x.y[0]"),
    "too deep to be sent": (f'[{{"x": {nested(30)}}}]', "[0].x.a.a.a"),
    "too deep to be read": ("[" * 100_000, "levels deep"),
    "huge and cut": ("[" + '{"name": "a"},' * 50_000, "column 700002"),
    "huge, broken at its end": ("[" + "{}," * 50_000 + "1]", "[50000]"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_annotation_is_refused_with_the_place(case: str) -> None:
    text, where = BROKEN[case]
    error = refusal(text)
    assert error.reason is Reason.NETWORK_STATUS_MALFORMED
    assert where in error.message


DEVICE_KEYS = [(kind, key) for kind, keys in DEVICE_FIELDS.items() for key in keys]


@pytest.mark.parametrize(("kind", "key"), DEVICE_KEYS)
def test_every_field_of_a_device_must_be_text(kind: str, key: str) -> None:
    error = refusal(json.dumps([{"device-info": {"type": kind, kind: {key: ["x"]}}}]))
    assert f"[0].device-info.{kind}.{key} must be a string" in error.message


@pytest.mark.parametrize("kind", DEVICE_FIELDS)
def test_a_device_must_be_an_object(kind: str) -> None:
    error = refusal(json.dumps([{"device-info": {kind: "0000:18:02.5"}}]))
    assert f"[0].device-info.{kind} must be an object" in error.message


def test_the_error_names_what_was_read() -> None:
    assert refusal("{}").read == READ


def test_one_broken_attachment_breaks_the_answer() -> None:
    assert "[1].ips" in refusal('[{"name": "good"}, {"ips": 1}]').message


def test_foreign_text_cannot_break_or_flood_the_error_line() -> None:
    key, value = "\n2024 ERROR forged " * 500, "\nforged" * 5000
    sentence = refusal(json.dumps([{key: {"mtu": "\ud800" + value}}])).message
    assert "\n" not in sentence
    assert len(sentence) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
device_infos = st.fixed_dictionaries(
    {}, optional={"type": json_values, "version": json_values, "pci": json_values}
)
KEYS = ("name", "interface", "mac", "ips", "default", "mtu", "gateway", "dns")
attachments = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(KEYS, json_values) | {"device-info": device_infos | json_values}
)


@given(st.one_of(st.text(), st.text(alphabet='[]{}",:0aeNn\\u').map(lambda text: f"[{text}]")))
def test_any_text_gives_attachments_or_the_typed_error(text: str) -> None:
    try:
        assert isinstance(parse(text), tuple)
    except FailedPrecondition as error:
        assert error.reason is Reason.NETWORK_STATUS_MALFORMED


@given(st.lists(attachments, max_size=3))
def test_any_values_give_one_attachment_each_or_the_typed_error(found: list[Any]) -> None:
    try:
        assert len(parse(json.dumps(found))) == len(found)
    except FailedPrecondition as error:
        assert error.reason is Reason.NETWORK_STATUS_MALFORMED


words = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "name": words,
                "interface": words,
                "mac": words,
                "ips": st.lists(words),
                "default": st.booleans(),
                "mtu": st.integers(0, 2**32 - 1),
                "gateway": st.lists(words),
            }
        )
    )
)
def test_a_status_of_the_specification_comes_back(found: list[dict[str, Any]]) -> None:
    expected = tuple(
        NetworkStatus(**{**one, "ips": tuple(one["ips"]), "gateway": tuple(one["gateway"])})
        for one in found
    )
    assert parse(json.dumps(found)) == expected
