"""Joining what files and the API server say of the requests of a claim."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.collect.claim_sources import (
    NOT_ASKED,
    ask_api,
    join,
    requests_for,
    signature,
    uid_of,
)
from netutil.agent.errors import FailedPrecondition, Reason, Unavailable
from netutil.agent.messages.convert_claims import request
from netutil.agent.parsers.claims import (
    Attribute,
    ClaimDevice,
    ClaimRequest,
    ClaimSource,
    DeviceCondition,
    NetworkData,
)
from netutil.agent.pods.claims import ClaimReference
from netutil.agent.pods.claims_api import ClaimAnswer, ClaimsApi
from netutil.agent.pods.sources import claims_model as model

from tests.unit.pods.test_claims import pod_of

NOW = datetime(2026, 11, 30, 8, tzinfo=UTC)
UID, DRIVER = "claim-uid-1", "sriov.example.com"
REFERENCE = ClaimReference("nic", "web-nic", "vf")
BASE = ClaimRequest("nic", "web-nic", "shop")
DOWN = Unavailable(Reason.POD_LIST_UNAVAILABLE, "The API server does not answer.", read="there")
ATTRIBUTES = (("model", Attribute(string_value="A")),)


def of_file(*devices: str, request: str = "vf", driver: str = DRIVER) -> ClaimRequest:
    found = tuple(ClaimDevice("pool", one, ATTRIBUTES) for one in devices)
    return replace(
        BASE,
        claim_uid=UID,
        request=request,
        driver=driver,
        source=ClaimSource.NODE,
        generation=3,
        devices=found,
    )


def api_device(name: str, share: str | None = None, interface: str = "net1") -> ClaimDevice:
    ready = DeviceCondition("NetworkReady", "True")
    return ClaimDevice("pool", name, None, NetworkData(interface_name=interface), share, (ready,))


def of_api(
    *devices: ClaimDevice, request: str = "vf", driver: str = DRIVER, uid: str = UID
) -> ClaimRequest:
    return ClaimRequest(
        "",
        "web-nic",
        "shop",
        claim_uid=uid,
        request=request,
        driver=driver,
        source=ClaimSource.API_SERVER,
        devices=devices,
    )


RESERVED = (model.Consumer("pods", "web", "pod-uid"),)
WEB = pod_of({"metadata": {"name": "web", "namespace": "shop", "uid": "pod-uid"}})


def answer(
    *requests: ClaimRequest,
    error: Unavailable | None = None,
    reserved_for: tuple[model.Consumer, ...] = RESERVED,
) -> ClaimAnswer:
    return ClaimAnswer(requests, "", error, None, NOW, UID, reserved_for)


def joined(
    files: list[ClaimRequest], found: ClaimAnswer | None, reference: ClaimReference = REFERENCE
) -> list[ClaimRequest]:
    return join(files, BASE, found, reference)


class Held(ClaimsApi):
    """Answers what it is given."""

    def __init__(self, **answers: ClaimAnswer | Unavailable) -> None:
        self.answers, self.asked = answers, list[str]()

    def answer(self, namespace: str, name: str) -> ClaimAnswer:
        assert namespace == "shop"
        self.asked.append(name)
        found = self.answers[name]
        if isinstance(found, Unavailable):
            raise found
        return found


class TestJoin:
    def test_a_device_of_both_has_attributes_of_the_file(self) -> None:
        (one,) = joined([of_file("a")], answer(of_api(api_device("a", "share-1"))))
        (device,) = one.devices
        assert (one.source, one.generation) == (ClaimSource.NODE, 3)
        assert device.attributes == ATTRIBUTES
        assert device.share_id == "share-1"
        assert [(c.type, c.status) for c in device.conditions or ()] == [("NetworkReady", "True")]

    def test_a_file_counts_before_the_api_server(self) -> None:
        known = of_file("a")
        own = replace(known.devices[0], network_data=NetworkData(interface_name="own"))
        reported = replace(api_device("a"), attributes=())
        (one,) = joined([replace(known, devices=(own,))], answer(of_api(reported)))
        (device,) = one.devices
        assert (device.attributes, device.interface_name) == (ATTRIBUTES, "own")

    def test_the_api_server_adds_what_a_file_lacks(self) -> None:
        known = of_file("a")
        bare = replace(known.devices[0], attributes=None, network_data=None)
        reported = replace(api_device("a"), attributes=ATTRIBUTES)
        (one,) = joined([replace(known, devices=(bare,))], answer(of_api(reported)))
        (device,) = one.devices
        assert (one.source, one.generation) == (ClaimSource.NODE, 3)
        assert (device.attributes, device.interface_name) == (ATTRIBUTES, "net1")

    def test_a_request_without_a_file_is_the_api_servers(self) -> None:
        found = joined([of_file("a")], answer(of_api(api_device("b"), driver="gpu.example.com")))
        assert [(one.driver, one.source) for one in found] == [
            (DRIVER, ClaimSource.NODE),
            ("gpu.example.com", ClaimSource.API_SERVER),
        ]
        network = found[1].devices[0].network_data
        assert network == NetworkData(interface_name="net1")
        assert found[1].generation is None

    def test_a_device_that_a_file_lacks_is_the_api_servers(self) -> None:
        first, second = joined([of_file("a")], answer(of_api(api_device("a"), api_device("b"))))
        assert [one.name for one in first.devices] == ["a"]
        assert [one.name for one in second.devices] == ["b"]
        assert second.source is ClaimSource.API_SERVER

    def test_each_share_of_a_device_is_one(self) -> None:
        shares = (api_device("a", "one", "net1"), api_device("a", "two", "net2"))
        (found,) = joined([of_file("a", "a")], answer(of_api(*shares)))
        assert [(one.share_id, one.interface_name, one.attributes) for one in found.devices] == [
            ("one", "net1", ATTRIBUTES),
            ("two", "net2", ATTRIBUTES),
        ]

    def test_devices_stay_beside_the_error_of_a_file(self) -> None:
        error = FailedPrecondition(Reason.DEVICE_METADATA_MALFORMED, "It is no JSON.")
        failed = replace(of_file(), error=error, claim_uid=None)
        (found,) = joined([failed], answer(of_api(api_device("a"), request="vf/fast")))
        assert (found.error, found.source) == (error, ClaimSource.API_SERVER)
        assert (found.request, len(found.devices)) == ("vf/fast", 1)
        assert joined([failed], answer()) == [failed]

    def test_an_old_list_does_not_contradict_a_file(self) -> None:
        old = answer(of_api(api_device("a"), uid="earlier"), error=DOWN)
        assert joined([of_file("a")], old) == [of_file("a")]
        assert uid_of(old) == "" and uid_of(answer(of_api())) == UID and uid_of(None) == ""
        (alone,) = joined([], old)
        assert alone.claim_uid == "earlier"

    @given(
        st.lists(st.sampled_from("abc"), unique=True),
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "s", "t"])), unique=True),
    )
    def test_no_device_is_lost_or_doubled(
        self, file: list[str], shares: list[tuple[str, str | None]]
    ) -> None:
        found = joined([of_file(*file)], answer(of_api(*(api_device(*one) for one in shares))))
        devices = [(one.name, one.share_id) for request in found for one in request.devices]
        alone: list[tuple[str, str | None]] = [
            (name, None) for name in file if name not in {one for one, _ in shares}
        ]
        assert sorted(devices, key=str) == sorted(shares + alone, key=str)


class TestRequests:
    def test_a_reference_is_about_its_own_request(self) -> None:
        found = answer(*(of_api(request=one) for one in ("vf", "vf/fast", "vfx", "other")))
        named = [one.request for one in requests_for(found, REFERENCE)]
        assert named == ["vf", "vf/fast"]
        whole = replace(REFERENCE, request="")
        assert len(requests_for(found, whole)) == 4
        assert requests_for(None, whole) == []


class TestAsk:
    def test_each_claim_is_asked_for_once(self) -> None:
        api = Held(a=answer(), b=answer())
        found = ask_api(api, WEB, ["a", "b", "a"])
        assert api.asked == ["a", "b"] and found.error is None
        assert ask_api(None, WEB, ["a"]) is NOT_ASKED

    def test_an_unavailable_claim_is_an_error_beside_the_others(self) -> None:
        found = ask_api(Held(a=DOWN, b=answer(of_api(), error=DOWN)), WEB, ["b", "a"])
        assert list(found.by_name) == ["b"]
        assert isinstance(found.error, Unavailable)
        assert found.error.reason is Reason.RESOURCE_CLAIMS_UNAVAILABLE
        assert found.error.message == DOWN.message

    def test_a_claim_that_cannot_be_read_is_an_error(self) -> None:
        broken = ClaimAnswer(None, "x" * 1000, None, None, NOW)
        found = ask_api(Held(a=broken), WEB, ["a"])
        assert found.error is not None
        assert found.error.reason is Reason.RESOURCE_CLAIMS_MALFORMED
        assert len(found.error.message) < 500

    def test_missing_slices_matter_to_devices_alone(self) -> None:
        none = replace(answer(), attributes_error=DOWN)
        assert ask_api(Held(a=none), WEB, ["a"]).error is None
        some = replace(answer(of_api(api_device("a"))), attributes_error=DOWN)
        assert ask_api(Held(a=some), WEB, ["a"]).error is not None


class TestReserved:
    def refused(self, found: ClaimAnswer) -> FailedPrecondition:
        asked = ask_api(Held(a=found), WEB, ["a"])
        assert asked.by_name["a"].requests is None
        assert asked.refused["a"].reason is Reason.RESOURCE_CLAIM_NOT_RESERVED
        return asked.refused["a"]

    def test_a_claim_of_the_pod_is_answered(self) -> None:
        found = answer(of_api(api_device("a")))
        asked = ask_api(Held(a=found), WEB, ["a"])
        assert (asked.by_name, asked.refused) == ({"a": found}, {})

    @pytest.mark.parametrize(
        "consumers",
        [
            (),
            (model.Consumer("pods", "web", "earlier-uid"),),
            (model.Consumer("pods", "train", "u"), model.Consumer("pods", "batch", "v")),
        ],
        ids=["no pod", "an earlier pod of the name", "other pods"],
    )
    def test_a_claim_of_other_pods_is_refused(self, consumers: tuple[model.Consumer, ...]) -> None:
        error = self.refused(answer(of_api(api_device("a")), reserved_for=consumers))
        assert f"shop/a (UID {UID}) is reserved for {len(consumers)} other" in error.message
        assert "shop/web (UID pod-uid)" in error.message
        assert not any(one.name in error.message for one in consumers if one.name != "web")

    def test_a_claim_that_is_not_allocated_is_refused(self) -> None:
        error = self.refused(ClaimAnswer(None, "", None, None, NOW))
        assert "no claim shop/a that is allocated" in error.message

    def test_an_old_list_refuses_nothing_and_shows_nothing(self) -> None:
        old = answer(of_api(api_device("a")), error=DOWN, reserved_for=())
        asked = ask_api(Held(a=old), WEB, ["a"])
        assert (asked.by_name["a"].requests, asked.refused) == (None, {})
        assert asked.error is not None and asked.error.message == DOWN.message

    def test_a_claim_that_cannot_be_read_refuses_nothing(self) -> None:
        asked = ask_api(Held(a=ClaimAnswer(None, "broken", None, None, NOW, UID)), WEB, ["a"])
        assert asked.refused == {} and asked.error is not None


class TestSignature:
    @pytest.mark.parametrize(
        "other",
        [
            DOWN,
            answer(of_api(api_device("b"))),
            answer(of_api(api_device("a")), error=DOWN),
            replace(answer(of_api(api_device("a"))), attributes_error=DOWN),
            ClaimAnswer(None, "broken", None, None, NOW),
            answer(of_api(api_device("a")), reserved_for=()),
        ],
    )
    def test_a_change_of_the_claim_differs(self, other: ClaimAnswer | Unavailable) -> None:
        wanted = [("a", "vf")]
        before = signature(Held(a=answer(of_api(api_device("a")))), "shop", wanted)
        assert signature(Held(a=other), "shop", wanted) != before
        assert signature(Held(a=answer(of_api(api_device("a")))), "shop", wanted) == before

    def test_another_request_does_not_differ(self) -> None:
        wanted, own = [("a", "vf")], of_api(api_device("a"))
        others = [answer(own, of_api(api_device(one), request="other")) for one in "xy"]
        first, second = (signature(Held(a=one), "shop", wanted) for one in others)
        assert first == second and cast(list[object], first)
        assert signature(None, "shop", wanted) is None


def test_texts_of_a_condition_are_cut() -> None:
    found = DeviceCondition("Ready", "False", "é" * 30_000, "x" * 30_000, NOW)
    undated = msgspec.structs.replace(found, last_transition_time=None)
    device = ClaimDevice("pool", "a", conditions=(found, undated))
    made = request(replace(of_file(), devices=(device,)))
    first, second = made.devices[0].conditions
    assert len(first.message) < 5_000 and len(first.reason.encode()) < 5_000
    assert first.last_transition_time.ToDatetime(tzinfo=UTC) == NOW
    assert not second.HasField("last_transition_time")
