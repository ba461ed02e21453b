"""ResourceClaims at a real API server, followed with the right that the component gives.

Kubernetes 1.20 does not know resource.k8s.io: a CustomResourceDefinition replaces it (`claims.py`).
It refuses the field selector of slices. So tests of attributes follow slices without a selector,
and one test shows the agent with it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.api_server import ACCOUNT, RealApiServer
from tests.e2e.claims import FINALIZER, NAMESPACE, Claims
from tests.e2e.claims_feed import (
    NO_SELECTOR,
    Refusals,
    answered,
    create,
    device_of,
    following,
    has_reason,
    is_ready,
    is_unknown,
    one_device,
)
from tests.support.fakes.claims_of_api import PCI, device_status


@pytest.fixture
def claims(claims_server: RealApiServer) -> Iterator[Claims]:
    made = Claims(claims_server)
    yield made
    made.clear()


class TestRights:
    def test_without_the_component_the_right_is_named(self, claims_refusals: Refusals) -> None:
        error = claims_refusals.without
        text = f'resourceclaims.resource.k8s.io is forbidden: User "{ACCOUNT}" cannot list'
        assert text in error.message
        assert "list and watch on resourceclaims" in error.advice
        assert "manifests/resource-claims" in error.advice

    def test_without_slices_only_attributes_lack(self, claims_refusals: Refusals) -> None:
        """The same agent: it goes on once it may list claims."""
        found = claims_refusals.claims_alone
        assert found.claims_error is None and one_device(found).attributes is None
        assert one_device(found).network_data is not None
        assert found.attributes_error is not None
        text = f'resourceslices.resource.k8s.io is forbidden: User "{ACCOUNT}" cannot list'
        assert text in found.attributes_error.message

    async def test_custom_resources_have_no_node_selector(
        self, claims_server: RealApiServer, claims: Claims
    ) -> None:
        """From 1.30 on they may; the kind that a cluster serves has it always."""
        create(claims, "nic")
        async with following(claims_server, all_slices=False) as held:
            found = await answered(
                held, "nic", lambda found: NO_SELECTOR in str(found.attributes_error)
            )
            assert found.claims_error is None and found.attributes_error is not None
            assert one_device(found).network_data is not None
            assert (held.claim_stats.streaming, held.slice_stats.streaming) == (1, 0)


class TestFollowing:
    async def test_a_claim_has_what_its_driver_wrote(
        self, claims_server: RealApiServer, claims: Claims
    ) -> None:
        uid = create(claims, "nic")
        async with following(claims_server) as held:
            device = await device_of(held, "nic")
            found = held.answer(NAMESPACE, "nic")
            assert found.requests is not None and found.requests[0].claim_uid == uid
            assert [name for name, _ in device.attributes or ()] == [PCI]
            assert device.network_data is not None and device.conditions is not None
            assert device.network_data.ips == ("10.1.0.5/24",)
            (condition,) = device.conditions
            assert (condition.type, condition.status) == ("NetworkReady", "False")
            assert held.error is None and held.is_current

    async def test_changes_are_seen(self, claims_server: RealApiServer, claims: Claims) -> None:
        async with following(claims_server) as held:
            await held.current()
            await asyncio.to_thread(claims.create, "nic")
            assert is_unknown(held.answer(NAMESPACE, "nic"))
            await asyncio.to_thread(claims.allocate, "nic", devices=None)
            device = await device_of(held, "nic")
            assert (device.conditions, device.network_data) == (None, None)
            await asyncio.to_thread(claims.allocate, "nic", devices=[device_status()])
            await answered(held, "nic", lambda found: one_device(found).network_data is not None)
            ready = [{"type": "NetworkReady", "status": "True", "reason": "LinkUp"}]
            await asyncio.to_thread(claims.report, "nic", conditions=ready)
            await answered(held, "nic", is_ready)
            await asyncio.to_thread(claims.allocate, "nic", allocation=None, devices=None)
            await answered(held, "nic", is_unknown)
            assert (held.failures, held.claim_stats.restarts) == (0, 0)

    async def test_a_claim_in_deletion_is_held_until_its_end(
        self, claims_server: RealApiServer, claims: Claims
    ) -> None:
        """Its finalizer stays as long as the pod runs."""
        create(claims, "nic", FINALIZER)
        async with following(claims_server) as held:
            await device_of(held, "nic")
            await asyncio.to_thread(claims.delete, "nic")
            await asyncio.to_thread(claims.report, "nic", conditions=[])
            await answered(held, "nic", lambda found: not one_device(found).conditions)
            await asyncio.to_thread(claims.release, "nic")
            await answered(held, "nic", is_unknown)

    async def test_a_claim_made_again_is_another(
        self, claims_server: RealApiServer, claims: Claims
    ) -> None:
        first = create(claims, "nic")
        async with following(claims_server) as held:
            await device_of(held, "nic")
            await asyncio.to_thread(claims.delete, "nic")
            second = await asyncio.to_thread(create, claims, "nic")
            assert first != second
            await answered(
                held,
                "nic",
                lambda found: [one.claim_uid for one in found.requests or ()] == [second],
            )

    async def test_claims_of_other_nodes_are_not_held(
        self, claims_server: RealApiServer, claims: Claims
    ) -> None:
        create(claims, "elsewhere", node="node-2")
        create(claims, "anywhere", node=None)
        create(claims, "here")
        async with following(claims_server) as held:
            await device_of(held, "here")
            assert is_unknown(held.answer(NAMESPACE, "elsewhere"))
            assert (len(held), held.answer(NAMESPACE, "anywhere").problem) == (2, "")

    async def test_bookmarks_and_ends_of_watches_miss_nothing(
        self, claims_server: RealApiServer, claims: Claims, events: Counter[str]
    ) -> None:
        """1.20 sends a bookmark two seconds before the end of a watch that has brought an event."""
        create(claims, "nic")
        async with following(claims_server, watch_seconds=3) as held, asyncio.timeout(120):
            await device_of(held, "nic")
            number = 0
            while not (events["BOOKMARK"] and held.claim_stats.restarts):
                number += 1
                reported = [{"type": "Ready", "status": "True", "reason": f"Number{number}"}]
                await asyncio.to_thread(claims.report, "nic", conditions=reported)
                await answered(held, "nic", has_reason(f"Number{number}"))
                await asyncio.sleep(0.2)
            assert (held.failures, held.claim_stats.missed, events["EXPIRED"]) == (0, 0, 0)
            # The comparison lists the metadata alone.
            assert (await held._source.compare()).differences == frozenset()
