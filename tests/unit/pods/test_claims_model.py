"""Claims and slices as the API server prints them, and any other JSON in their place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.claims import MAX_ATTRIBUTES, MAX_VALUES, Attribute
from netutil.agent.pods.claims_api import requests_of
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.claims_model import (
    MAX_CONSUMERS,
    MAX_DEVICES,
    Claim,
    Consumer,
    Slice,
    decode_claim,
    decode_claims,
    decode_slice,
    decode_slices,
    decode_version,
    newest,
)

from tests.support.fakes.claims_of_api import (
    DRIVER,
    PCI,
    POOL,
    claim,
    device_status,
    resource_slice,
)

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def of_claim(made: object) -> Claim:
    return decode_claim(json.dumps(made).encode(), Flaws())


def of_slice(made: object) -> Slice:
    return decode_slice(json.dumps(made).encode(), Flaws())


class TestClaim:
    def test_allocation_and_status_are_read(self) -> None:
        found = of_claim(claim())
        assert (found.namespace, found.name, found.uid) == ("shop", "claim-1", "claim-uid-1")
        assert [(one.request, one.driver) for one in found.results] == [("vf", DRIVER)]
        (device,) = found.devices
        assert device.network_data is not None and device.conditions is not None
        assert device.network_data.ips == ("10.1.0.5/24",)
        (condition,) = device.conditions
        assert (condition.type, condition.status) == ("NetworkReady", "False")
        assert condition.last_transition_time == datetime(2026, 11, 30, 8, 0, 1, tzinfo=UTC)

    def test_the_consumers_of_a_claim_are_read(self) -> None:
        group = {
            "apiGroup": "scheduling.k8s.io",
            "resource": "podgroups",
            "name": "train",
            "uid": "group-uid",
        }
        pod = {"resource": "pods", "name": "web", "uid": "pod-uid"}
        assert of_claim(claim(reservedFor=[pod, group])).reserved_for == (
            Consumer("pods", "web", "pod-uid"),
            Consumer("podgroups", "train", "group-uid", "scheduling.k8s.io"),
        )
        most = [pod] * MAX_CONSUMERS
        assert len(of_claim(claim(reservedFor=most)).reserved_for) == MAX_CONSUMERS

    @pytest.mark.parametrize("status", [None, {}, {"devices": []}, {"allocation": None}])
    def test_a_claim_without_an_allocation_is_for_no_node(self, status: object) -> None:
        assert not of_claim({**claim(), "status": status}).is_for("node-1")

    @pytest.mark.parametrize(
        ("terms", "nodes"),
        [
            ([], set()),
            ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}], "a"),
            ([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}], None),
            (
                [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]},
                ],
                "ab",
            ),
            (
                [{"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}],
                None,
            ),
        ],
    )
    def test_a_node_selector_names_nodes_or_any(self, terms: object, nodes: Any) -> None:
        made = claim()
        made["status"]["allocation"]["nodeSelector"] = {"nodeSelectorTerms": terms}
        assert of_claim(made).nodes == (None if nodes is None else set(nodes))

    @pytest.mark.parametrize(
        "broken",
        [
            {"devices": "none"},
            {"devices": [device_status(networkData={"ips": [1]})]},
            {"devices": [device_status()] * (MAX_DEVICES + 1)},
            {"reservedFor": [{"resource": "pods", "name": "web"}]},
            {"reservedFor": [{"resource": "p", "name": "w", "uid": "u"}] * (MAX_CONSUMERS + 1)},
            {"devices": [device_status(conditions=device_status()["conditions"] * 65)]},
            {"allocation": {"devices": {"results": [{"request": "vf"}]}}},
        ],
    )
    def test_a_status_that_cannot_be_read_is_a_problem(self, broken: dict[str, Any]) -> None:
        found = of_claim(claim(**broken))
        assert found.problem and found.is_for("node-1")
        assert (found.results, found.devices, found.reserved_for) == ((), (), ())

    @pytest.mark.parametrize("key", ["name", "namespace", "uid"])
    def test_a_claim_that_is_not_named_is_none(self, key: str) -> None:
        made = claim()
        del made["metadata"][key]
        with pytest.raises(PodListMalformed):
            of_claim(made)

    @given(ANY_JSON, st.sampled_from(["allocation", "devices", "reservedFor"]))
    def test_any_status_is_read_or_a_problem(self, value: Any, key: str) -> None:
        found = of_claim(claim(**{key: value}))
        assert found.name == "claim-1"

    @given(st.binary(max_size=100))
    def test_any_bytes_are_refused_or_read(self, content: bytes) -> None:
        for decode in (decode_claim, decode_slice, decode_claims, decode_slices):
            try:
                decode(content, Flaws())
            except PodListMalformed as error:
                assert str(error)


class TestSlice:
    @pytest.mark.parametrize("version", ["v1", "v1beta1"])
    def test_attributes_are_read_of_each_version(self, version: str) -> None:
        (device,) = of_slice(resource_slice(version=version)).devices
        assert device.attributes == ((PCI, Attribute(string_value="0000:3b:02.1")),)

    def test_each_type_of_attribute_is_read(self) -> None:
        given: dict[str, Any] = {
            "a": {"int": 2**63 - 1},
            "b": {"bool": False},
            "c": {"version": "1.2.3"},
            "d": {"ints": [1, 2]},
            "e": {"bools": [True]},
            "f": {"strings": ["x"]},
            "g": {"versions": ["1.0.0"]},
        }
        (device,) = of_slice(resource_slice(**given)).devices
        for name, value in device.attributes:
            said = json.loads(msgspec.json.encode(value))
            assert {key: one for key, one in said.items() if one is not None} == given[name]

    @pytest.mark.parametrize(
        "attributes",
        [
            {f"a{n}": {"int": n} for n in range(MAX_ATTRIBUTES + 1)},
            {"a": {"ints": list(range(MAX_VALUES + 1))}},
            {"a": {"int": 2**63}},
            {"a": {"string": 1}},
        ],
    )
    def test_a_value_beyond_its_bound_is_refused(self, attributes: dict[str, Any]) -> None:
        with pytest.raises(PodListMalformed, match="no ResourceSlice"):
            of_slice(resource_slice(**attributes))

    def test_only_the_highest_generation_of_a_pool_counts(self) -> None:
        old = of_slice(resource_slice(1, 1, a={"int": 1}))
        new = of_slice(resource_slice(2, 2, b={"int": 2}))
        for order in ([old, new], [new, old]):
            (device,) = newest(order)[DRIVER, POOL].devices.values()
            assert [name for name, _ in device.attributes] == ["b"]

    @pytest.mark.parametrize(("count", "is_complete"), [(1, True), (2, False), (None, True)])
    def test_a_pool_is_complete_with_as_many_slices_as_it_says(
        self, count: int | None, is_complete: bool
    ) -> None:
        made = resource_slice(2, 2)
        made["spec"]["pool"]["resourceSliceCount"] = count
        if count is None:
            del made["spec"]["pool"]["resourceSliceCount"]
        pool = newest([of_slice(resource_slice(1, 1)), of_slice(made)])[DRIVER, POOL]
        assert (pool.slices, pool.is_complete) == (1, is_complete)


class TestList:
    def test_an_unreadable_item_is_counted(self) -> None:
        flaws = Flaws()
        body = json.dumps({"items": [claim(), {"metadata": {}}, None]}).encode()
        assert len(decode_claims(body, flaws)) == 1
        assert flaws.entries == 2

    def test_a_list_of_which_nothing_can_be_read_is_refused(self) -> None:
        with pytest.raises(PodListMalformed, match="nothing of its 1 entries"):
            decode_slices(b'{"items": [{}]}', Flaws())

    def test_an_empty_list_is_none(self) -> None:
        assert decode_claims(b'{"items": null}', Flaws()) == ()

    @pytest.mark.parametrize(
        ("served", "best"),
        [(["v1beta1", "v1"], "v1"), (["v1beta1", "v1beta2"], "v1beta2"), (["v1alpha3"], "")],
    )
    def test_the_best_version_is_chosen(self, served: list[str], best: str) -> None:
        body = json.dumps({"versions": [{"version": one} for one in served]}).encode()
        assert decode_version(body) == best


class TestRequests:
    def test_a_request_has_allocation_status_and_attributes(self) -> None:
        devices = newest([of_slice(resource_slice())])
        (request,) = requests_of(of_claim(claim()), devices)
        assert (request.claim_name, request.claim_namespace) == ("claim-1", "shop")
        assert (request.claim_uid, request.request, request.driver) == ("claim-uid-1", "vf", DRIVER)
        (device,) = request.devices
        assert (device.pool, device.name, device.share_id) == (POOL, "0000-3b-02-1", None)
        assert device.attributes == ((PCI, Attribute(string_value="0000:3b:02.1")),)
        assert device.network_data is not None and device.conditions is not None

    def test_a_value_of_no_source_is_unknown(self) -> None:
        (request,) = requests_of(of_claim(claim(devices=None)), {})
        (device,) = request.devices
        assert (device.attributes, device.network_data, device.conditions) == (None, None, None)

    def test_shares_of_one_device_keep_their_own_status(self) -> None:
        result = {"request": "vf", "driver": DRIVER, "pool": POOL, "device": "0000-3b-02-1"}
        results = [{**result, "shareID": "a"}, {**result, "shareID": "b"}]
        made = claim(
            allocation={"devices": {"results": results}},
            devices=[device_status(shareID="b", networkData={"interfaceName": "net2"})],
        )
        (request,) = requests_of(of_claim(made), {})
        first, second = request.devices
        assert (first.share_id, first.network_data) == ("a", None)
        assert second.network_data is not None
        assert second.network_data.interface_name == "net2"

    def test_requests_are_apart_by_name_and_driver(self) -> None:
        result = {"pool": POOL, "device": "x"}
        results = [
            {**result, "request": "a", "driver": "one.example"},
            {**result, "request": "a", "driver": "two.example"},
            {**result, "request": "b/c", "driver": "one.example"},
        ]
        made = claim(allocation={"devices": {"results": results}})
        found = [(one.request, one.driver) for one in requests_of(of_claim(made), {})]
        assert found == [("a", "one.example"), ("a", "two.example"), ("b/c", "one.example")]
