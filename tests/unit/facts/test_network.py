"""The source of a pod's networks, and the requests that a caller may make."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import AgentError, FailedPrecondition, InvalidArgument, NotFound, Reason
from netutil.agent.facts.interfaces import merge
from netutil.agent.facts.network import (
    NETWORK_STATUS,
    NETWORKS_STATUS,
    Networks,
    Source,
    ensure_interface_name,
    of_interface,
    read_networks,
)
from netutil.agent.messages import convert
from netutil.agent.parsers.network_status import NetworkStatus, is_set
from netutil.agent.parsers.userspace_cni import CONFIGURATION_DATA, MAPPED_DIRECTORY
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import IP, Metadata, Pod, Status
from netutil.agent.pods.spec import Spec
from netutil.v1alpha import netutil_pb2 as api

from tests.support.annotations import (
    MULTUS_SEVERAL,
    NO_DNS,
    REAL_WORLD,
    USERSPACE,
    USERSPACE_DIRECTORY,
)
from tests.unit.facts.reports import link

POD = "telco/upf-0"
DUAL_STACK = ("10.244.1.7", "fd00:10:244:1::7")
ONE = '[{"name": "default/one", "interface": "net1"}]'
OTHER = '[{"name": "default/other", "interface": "net2"}]'


def read(annotations: dict[str, str], *ips: str) -> Networks:
    return read_networks(annotations, ips, pod=POD)


def test_the_annotation_counts_without_the_pods_own_ips() -> None:
    assert read({NETWORK_STATUS: ONE}, *DUAL_STACK) == Networks(
        (NetworkStatus("default/one", "net1"),), Source.NETWORK_STATUS
    )


def test_the_older_spelling_counts_where_the_newer_is_not() -> None:
    found = read({NETWORKS_STATUS: OTHER}, *DUAL_STACK)
    assert found == Networks((NetworkStatus("default/other", "net2"),), Source.NETWORKS_STATUS)


def test_the_newer_of_both_spellings_counts() -> None:
    found = read({NETWORKS_STATUS: OTHER, NETWORK_STATUS: ONE})
    assert found == Networks((NetworkStatus("default/one", "net1"),), Source.NETWORK_STATUS)


NOT_SET = ["", " ", "\n\t ", "null", " null\n"]


@pytest.mark.parametrize("text", NOT_SET)
def test_an_annotation_without_text_is_as_one_that_is_not_there(text: str) -> None:
    assert read({NETWORK_STATUS: text}, *DUAL_STACK) == read({}, *DUAL_STACK)
    assert read({NETWORKS_STATUS: text}, *DUAL_STACK) == read({}, *DUAL_STACK)
    assert read({NETWORK_STATUS: text, NETWORKS_STATUS: OTHER}) == read({NETWORKS_STATUS: OTHER})
    assert read({NETWORK_STATUS: ONE, CONFIGURATION_DATA: text}) == read({NETWORK_STATUS: ONE})
    assert read({NETWORK_STATUS: text}) == Networks((), Source.POD_STATUS)


def test_an_empty_list_is_one() -> None:
    assert read({NETWORK_STATUS: "[]"}, *DUAL_STACK) == Networks((), Source.NETWORK_STATUS)


@given(st.text(max_size=30))
def test_a_text_is_not_set_or_is_parsed_and_never_left_unsaid(text: str) -> None:
    try:
        found = read({NETWORK_STATUS: text}, *DUAL_STACK)
    except FailedPrecondition:
        assert is_set(text)
    else:
        assert is_set(text) == (found.source is Source.NETWORK_STATUS)


@given(st.text(alphabet=" \t\n\r", max_size=30), st.text(alphabet=" \t\n\r", max_size=30))
def test_blanks_around_it_change_nothing(before: str, after: str) -> None:
    assert not is_set(before + after)
    assert not is_set(f"{before}null{after}")
    assert is_set(f"{before}[]{after}")


def test_a_broken_newer_annotation_is_an_error_beside_the_older() -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        read({NETWORKS_STATUS: OTHER, NETWORK_STATUS: "{"}, *DUAL_STACK)
    assert refusal.value.reason is Reason.NETWORK_STATUS_MALFORMED
    assert refusal.value.read == f"annotation {NETWORK_STATUS} of pod {POD}"


def test_the_error_of_the_older_annotation_names_that_annotation() -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        read({NETWORKS_STATUS: "{}"}, *DUAL_STACK)
    assert refusal.value.read == f"annotation {NETWORKS_STATUS} of pod {POD}"


def test_interfaces_of_the_userspace_plugin_are_given_its_device() -> None:
    one = [{"name": "default/ovs", "interface": "net1", "ips": ["10.0.0.1"], "dns": {}}]
    found = read(
        {
            NETWORK_STATUS: json.dumps(one),
            CONFIGURATION_DATA: USERSPACE,
            MAPPED_DIRECTORY: USERSPACE_DIRECTORY,
        }
    )
    first, second = found.status
    assert (first.name, first.ips, first.dns) == ("default/ovs", ("10.0.0.1",), NO_DNS)
    assert (second.name, second.interface) == ("userspace-vpp-net", "net2")
    kinds = [one.device_info and one.device_info.type for one in found.status]
    assert kinds == ["vhost-user", "memif"]
    assert {one.device_info_annotation for one in found.status} == {CONFIGURATION_DATA}


def test_a_reported_device_info_is_not_replaced() -> None:
    info = {"type": "memif", "memif": {"path": "/run/m"}}
    one = json.dumps([{"interface": "net1", "device-info": info}])
    first, _ = read({NETWORK_STATUS: one, CONFIGURATION_DATA: USERSPACE}).status
    assert first.device_info is not None and first.device_info.type == "memif"
    assert first.device_info_annotation == ""


def test_a_broken_userspace_annotation_hides_its_own_names_only() -> None:
    found = read({NETWORK_STATUS: ONE, CONFIGURATION_DATA: '[{"ifName": "net2"'})
    assert of_interface(found, "net1").status == found.status
    raised = []
    for _ in range(2):
        with pytest.raises(FailedPrecondition) as refusal:
            of_interface(found, "net2")
        raised.append(refusal.value)
    kept = found.device_info_error
    assert kept is not None and kept.__traceback__ is None
    assert all(one.message == kept.message and one is not kept for one in raised)


def test_a_broken_userspace_annotation_hides_no_reported_network() -> None:
    found = read({NETWORK_STATUS: ONE, CONFIGURATION_DATA: "{}"})
    assert found.status == (NetworkStatus("default/one", "net1"),)
    assert found.device_info_error is not None
    assert found.device_info_error.reason is Reason.NETWORK_STATUS_MALFORMED
    assert found.device_info_error.read == f"annotation {CONFIGURATION_DATA} of pod {POD}"
    sent = answer(pod({NETWORK_STATUS: ONE, CONFIGURATION_DATA: "{}"}))
    assert [one.interface for one in sent.status] == ["net1"]
    assert sent.device_info_error.reason == "NETWORK_STATUS_MALFORMED"


def test_the_request_for_networks_is_no_status_of_them() -> None:
    asked = {"k8s.v1.cni.cncf.io/networks": "default/one"}
    assert read(asked, "10.244.1.7").source is Source.POD_STATUS


@pytest.mark.parametrize("ips", [("10.244.1.7",), ("fd00::7",), DUAL_STACK])
def test_a_pod_without_annotation_has_one_default_network(ips: tuple[str, ...]) -> None:
    assert read({}, *ips) == Networks((NetworkStatus(ips=ips, default=True),), Source.POD_STATUS)


def pod(
    annotations: dict[str, str] | None = None,
    ips: tuple[str, ...] = (),
    *,
    host_network: bool = False,
) -> Pod:
    return Pod(
        metadata=Metadata(name="upf-0", namespace="telco", uid="u", annotations=annotations),
        spec=Spec(host_network=host_network),
        status=Status(pod_ips=tuple(map(IP, ips))),
    )


NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


def answer(of: Pod, observed_at: datetime = NOON) -> api.NetworkStatusResponse:
    """Return the agent's answer as a client decodes it."""
    networks = read_networks(of.metadata.annotations or {}, of.ips, pod=of.full_name)
    sent = convert.network(networks, Match(of, "app", "container", observed_at))
    return api.NetworkStatusResponse.FromString(sent.SerializeToString())


def test_a_host_network_pod_has_the_node_s_ips_and_is_marked() -> None:
    found = answer(pod(ips=("192.0.2.10", "2001:db8::10"), host_network=True))
    assert found.host_network
    assert [list(status.ips) for status in found.status] == [["192.0.2.10", "2001:db8::10"]]
    assert found.source == api.NETWORK_SOURCE_POD_STATUS


def test_the_source_shows_whether_an_annotation_exists() -> None:
    not_yet, none = answer(pod()), answer(pod({NETWORK_STATUS: "[]"}, DUAL_STACK))
    assert len(not_yet.status) == len(none.status) == 0
    assert not_yet.source == api.NETWORK_SOURCE_POD_STATUS
    assert none.source == api.NETWORK_SOURCE_NETWORK_STATUS


def test_a_later_annotation_changes_source_and_time() -> None:
    before = answer(pod(ips=DUAL_STACK), NOON)
    after = answer(pod({NETWORK_STATUS: ONE}, DUAL_STACK), NOON + timedelta(seconds=10))
    assert before.source == api.NETWORK_SOURCE_POD_STATUS
    assert after.source == api.NETWORK_SOURCE_NETWORK_STATUS
    assert before.observed_at.ToDatetime(UTC) == NOON
    assert after.observed_at.ToDatetime(UTC) == NOON + timedelta(seconds=10)


@pytest.mark.parametrize("case", REAL_WORLD)
def test_a_real_annotation_reaches_the_client_whole(case: str) -> None:
    text, expected = REAL_WORLD[case]
    found = answer(pod({NETWORK_STATUS: text})).status
    for sent, status in zip(found, expected, strict=True):
        assert (sent.name, sent.interface, sent.mac) == (status.name, status.interface, status.mac)
        assert (tuple(sent.ips), tuple(sent.gateway)) == (status.ips, status.gateway)
        assert (sent.mtu if sent.HasField("mtu") else None) == status.mtu
        assert sent.default == status.default
        assert sent.HasField("device_info") == (status.device_info is not None)
        for kind, device in (status.device_info.devices if status.device_info else {}).items():
            carried = getattr(sent.device_info, kind.replace("-", "_"))
            for name, value in device.fields.items():
                assert getattr(carried, name.replace("-", "_")) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**320), 10**320) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
PLACES: list[Callable[[Any], dict[str, Any]]] = [
    lambda value: {"x": value},
    lambda value: {"device-info": {"x": value}},
    lambda value: {"device-info": {"pci": {"x": value}}},
]


@given(
    st.sampled_from(PLACES), json_values, st.integers(0, 25), st.sampled_from(["list", "object"])
)
def test_every_accepted_annotation_fits_an_answer(
    place: Callable[[Any], dict[str, Any]], value: Any, levels: int, kind: str
) -> None:
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    try:
        found = answer(pod({NETWORK_STATUS: json.dumps([place(value)])}))
    except AgentError as error:
        assert error.reason is Reason.NETWORK_STATUS_MALFORMED
    else:
        assert len(found.status) == 1


SEVERAL = read({NETWORK_STATUS: MULTUS_SEVERAL})


def test_an_empty_interface_asks_for_all() -> None:
    assert of_interface(SEVERAL, "") == SEVERAL


def test_an_interface_gets_its_own_network_and_the_source() -> None:
    found = of_interface(SEVERAL, "net1")
    assert [status.name for status in found.status] == ["default/macvlan-conf"]
    assert found.source is Source.NETWORK_STATUS


def test_an_interface_with_two_entries_gets_both() -> None:
    twice = '[{"name": "v4", "interface": "net1"}, {"name": "v6", "interface": "net1"}]'
    found = of_interface(read({NETWORK_STATUS: twice}), "net1")
    assert [status.name for status in found.status] == ["v4", "v6"]


@pytest.mark.parametrize("interface", ["net3", "NET1", "net", "net11", "bridge-l2"])
def test_an_interface_that_the_pod_does_not_report_is_not_found(interface: str) -> None:
    with pytest.raises(NotFound) as refusal:
        of_interface(SEVERAL, interface)
    assert refusal.value.reason is Reason.INTERFACE_NOT_FOUND
    assert "(unnamed), net1, net2" in refusal.value.message


def test_a_name_with_two_entries_is_listed_once() -> None:
    twice = '[{"name": "v4", "interface": "net1"}, {"name": "v6", "interface": "net1"}]'
    with pytest.raises(NotFound, match=r"reported are: net1\.") as refusal:
        of_interface(read({NETWORK_STATUS: twice}), "net2")
    assert "GetInterfaces" in refusal.value.advice


def test_the_error_of_a_host_network_pod_says_links_are_unlisted() -> None:
    with pytest.raises(NotFound, match="the node's own network, whose links are not") as refusal:
        of_interface(SEVERAL, "eth0", host_network=True)
    assert "GetInterfaces" not in refusal.value.advice


@pytest.mark.parametrize("ips", [(), DUAL_STACK])
def test_no_interface_is_known_without_an_annotation(ips: tuple[str, ...]) -> None:
    with pytest.raises(NotFound) as refusal:
        of_interface(read({}, *ips), "eth0")
    assert "leaving the name out" in refusal.value.advice


UNNAMED = '[{"name": "cbr0", "ips": ["10.244.1.7"]}, {"name": "one", "interface": "net1"}]'


@pytest.mark.parametrize("annotations", [{}, {NETWORK_STATUS: UNNAMED}])
def test_a_nameless_network_has_its_links_name_in_every_call(
    annotations: dict[str, str],
) -> None:
    networks = read(annotations, *DUAL_STACK)
    links = (link(1, "lo"), link(2, "eth0", "", "10.244.1.7/24"), link(3, "other"))
    merged = {one.name: one.network for one in merge(networks, links, (), lambda _: None)}
    found = of_interface(networks, "eth0", links)
    assert found.status == (merged["eth0"],)
    with pytest.raises(NotFound) as refusal:
        of_interface(networks, "other", links)
    assert "No network of interface 'other' is reported" in refusal.value.message
    assert "eth0" in refusal.value.message and merged["other"] is None


@pytest.mark.parametrize(
    "name",
    ["eth0", "net1.105", "a", "x" * 15, "veth-3@x", "...", "\u00e4" * 7, "-", "%d"],
)
def test_every_name_that_the_kernel_takes_may_be_requested(name: str) -> None:
    ensure_interface_name(name)


@pytest.mark.parametrize(
    "name",
    [".", "..", "a/b", "../eth0", "eth0:1", "a b", "a\tb", "eth0\n", "x" * 16, "\u00e4" * 8],
)
def test_an_impossible_interface_name_is_refused_before_any_read(name: str) -> None:
    for ask in (lambda: ensure_interface_name(name), lambda: of_interface(SEVERAL, name)):
        with pytest.raises(InvalidArgument) as refusal:
            ask()
        assert refusal.value.reason is Reason.INTERFACE_MALFORMED


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_interface_gives_networks_or_a_typed_error(interface: str) -> None:
    try:
        of_interface(SEVERAL, interface)
    except AgentError as error:
        assert error.reason in (Reason.INTERFACE_MALFORMED, Reason.INTERFACE_NOT_FOUND)
        assert len(error.message) < 200
