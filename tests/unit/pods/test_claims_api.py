"""Claims and slices are followed at a server that speaks list and watch over TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.claims_api import ClaimAnswer, ClaimsApi
from netutil.agent.pods.http.apiserver_login import ServiceAccount, open_login
from netutil.agent.pods.sources import reflector
from netutil.agent.pods.sources.claims import ClaimSource, SliceSource, claim_settings
from netutil.agent.pods.sources.reflector import ReflectorSettings

from tests.support.fakes.apiserver import NODE, ApiServer, api_server, refusing
from tests.support.fakes.claims_of_api import claim, device_status, resource_slice
from tests.support.waiting import until

GROUP = "/apis/resource.k8s.io"


@pytest.fixture
def claims_api(good_context: ssl.SSLContext) -> Iterator[ApiServer]:
    with api_server(good_context) as made:
        made.path = f"{GROUP}/v1/resourceclaims"
        made.one_name = f"{GROUP}/v1/namespaces/default/resourceclaims"
        made.selector, made.served = None, ["v1", "v1beta1"]
        yield made


@pytest.fixture
def slices_api(good_context: ssl.SSLContext) -> Iterator[ApiServer]:
    with api_server(good_context) as made:
        made.path = made.one_name = f"{GROUP}/v1/resourceslices"
        made.served = ["v1"]
        yield made


@pytest.fixture
def settings(claims_api: ApiServer, ca_file: str, token_file: str) -> ReflectorSettings:
    login = open_login(ServiceAccount(claims_api.url, ca_file, token_file))
    return claim_settings(login)


@asynccontextmanager
async def following(
    settings: ReflectorSettings, slices_api: ApiServer, ca_file: str, token_file: str
) -> AsyncIterator[ClaimsApi]:
    login = open_login(ServiceAccount(slices_api.url, ca_file, token_file))
    made = ClaimsApi(ClaimSource(settings, NODE), SliceSource(replace(settings, login=login), NODE))
    made.start()
    try:
        yield made
    finally:
        await made.close()


Follow = Callable[[], AbstractAsyncContextManager[ClaimsApi]]


@pytest.fixture
def follow(
    settings: ReflectorSettings, slices_api: ApiServer, ca_file: str, token_file: str
) -> Follow:
    """For tests that say first how the server answers the first request."""
    return partial(following, settings, slices_api, ca_file, token_file)


@pytest.fixture
async def held(follow: Follow) -> AsyncIterator[ClaimsApi]:
    async with follow() as made:
        yield made


async def answered(held: ClaimsApi, name: str = "claim-1") -> ClaimAnswer:
    """Return once the claim is allocated and its attributes are there."""
    async with asyncio.timeout(60):
        while True:
            seen = held.generation
            try:
                found = held.answer("shop", name)
                if found.requests is not None and found.attributes_error is None:
                    return found
            except Unavailable:
                pass
            await held.changed(seen)


class TestFollowing:
    async def test_a_claim_is_answered_with_its_attributes(
        self, claims_api: ApiServer, slices_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim())
        slices_api.put(resource_slice())
        found = await answered(held)
        assert found.requests is not None
        (request,) = found.requests
        (device,) = request.devices
        assert device.attributes and device.network_data is not None
        assert held.error is None

    async def test_a_condition_that_changes_is_a_change(
        self, claims_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim())
        await answered(held)
        ready = [{"type": "NetworkReady", "status": "True"}]
        seen = held.generation
        claims_api.put(claim(devices=[device_status(conditions=ready)]))
        await held.changed(seen)
        found = held.answer("shop", "claim-1")
        assert found.requests is not None
        (condition,) = found.requests[0].devices[0].conditions or ()
        assert condition.status == "True"
        assert (len(claims_api.listed), len(claims_api.watched)) == (1, 1)

    async def test_claims_for_other_nodes_are_not_held(
        self, claims_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim(1, node="node-2"))
        claims_api.put(claim(2, status={}))
        claims_api.put(claim(3))
        claims_api.put(claim(4, node=None))
        await answered(held, "claim-4")
        assert held.answer("shop", "claim-1").requests is None
        assert held.answer("shop", "claim-3").requests is not None

    async def test_claims_of_all_nodes_come_in_pages(
        self, claims_api: ApiServer, slices_api: ApiServer, settings: ReflectorSettings
    ) -> None:
        claims_api.page_objects = 2
        for number in range(1, 6):
            claims_api.put(claim(number, node=NODE if number == 5 else "node-2"))
        source = ClaimSource(settings, NODE)
        made = ClaimsApi(source, SliceSource(settings, NODE))
        made.start()
        try:
            await made.current()
            assert len(made) == 1
            assert not (await source.compare()).differences
        finally:
            await made.close()
        for asked in (claims_api.listed, claims_api.compared):
            assert [query.get("continue") for query in asked] == [None, "2", "4"]
            assert all("resourceVersion" not in query for query in asked)

    async def test_a_claim_that_is_given_back_is_not_held(
        self, claims_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim())
        await answered(held)
        claims_api.put(claim(allocation=None, devices=None))
        await until(lambda: held.answer("shop", "claim-1").requests is None)

    async def test_a_claim_that_cannot_be_read_says_why(
        self, claims_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim(1, devices="none"))
        claims_api.put(claim(2))
        await answered(held, "claim-2")
        found = held.answer("shop", "claim-1")
        assert found.requests is None and "status.devices" in found.problem

    async def test_older_versions_are_asked_for_where_they_are_served(
        self, claims_api: ApiServer, follow: Follow
    ) -> None:
        claims_api.served = ["v1beta1"]
        claims_api.path = f"{GROUP}/v1beta1/resourceclaims"
        claims_api.put(claim())
        async with follow() as held:
            await answered(held)

    async def test_a_410_causes_a_new_list_of_claims(
        self, claims_api: ApiServer, follow: Follow
    ) -> None:
        claims_api.watches.append(refusing(410, "Expired", "too old resource version"))
        claims_api.put(claim())
        async with follow() as held:
            await answered(held)
            await until(lambda: len(claims_api.listed) == 2)
            assert claims_api.listed[1]["resourceVersionMatch"] == "NotOlderThan"

    async def test_a_pool_that_is_being_published_says_so(
        self, claims_api: ApiServer, slices_api: ApiServer, held: ClaimsApi
    ) -> None:
        claims_api.put(claim())
        slices_api.put(resource_slice(1))
        await answered(held)
        part = resource_slice(2, 2)
        part["spec"]["pool"]["resourceSliceCount"] = 2
        part["spec"]["devices"][0]["name"] = "other"
        slices_api.put(part)
        await until(lambda: held.answer("shop", "claim-1").attributes_error is not None)
        found = held.answer("shop", "claim-1")
        assert found.requests is not None and found.attributes_error is not None
        assert found.requests[0].devices[0].attributes is None
        assert "1 of 2 slices of pool node-1, generation 2" in found.attributes_error.message
        whole = resource_slice(1, 2)
        whole["spec"]["pool"]["resourceSliceCount"] = 2
        slices_api.put(whole)
        await answered(held)


class TestRefused:
    async def test_403_names_the_component(self, claims_api: ApiServer, follow: Follow) -> None:
        claims_api.lists.append(refusing(403, "Forbidden", "resourceclaims is forbidden"))
        async with follow() as held:
            with pytest.raises(Unavailable, match="resourceclaims is forbidden") as refused:
                await held.current()
            assert "manifests/resource-claims" in refused.value.advice

    @pytest.mark.parametrize("served", [["v1alpha3"], []])
    async def test_a_cluster_without_the_api_is_reported(
        self, claims_api: ApiServer, follow: Follow, served: list[str]
    ) -> None:
        claims_api.served = served
        async with follow() as held:
            with pytest.raises(Unavailable) as refused:
                await held.current()
            assert "1.32" in refused.value.advice

    async def test_missing_slices_take_only_the_attributes(
        self, claims_api: ApiServer, slices_api: ApiServer, follow: Follow
    ) -> None:
        slices_api.served = []
        claims_api.put(claim())
        async with follow() as held:
            await held.current()
            await until(lambda: held.error is not None)
            found = held.answer("shop", "claim-1")
            assert found.requests is not None and found.attributes_error is not None
            assert found.requests[0].devices[0].attributes is None

    async def test_too_many_claims_are_refused(
        self, claims_api: ApiServer, held: ClaimsApi, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reflector, "MAX_OBJECTS", 2)
        await held.current()
        for number in range(1, 4):
            claims_api.put(claim(number))
        await until(lambda: held.error is not None)
        assert held.error is not None and "more than 2 claims" in held.error.message

    async def test_an_answer_before_the_first_list_is_an_error(self, follow: Follow) -> None:
        async with follow() as held:
            with pytest.raises(Unavailable, match="not been listed yet"):
                held.answer("shop", "claim-1")
