"""The agent's feed of claims, at a real API server, and what it says of a claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.parsers.claims import ClaimDevice
from netutil.agent.pods.claims_api import ClaimAnswer, ClaimsApi
from netutil.agent.pods.http.apiserver_login import ServiceAccount, open_login
from netutil.agent.pods.sources.claims import ClaimSource, SliceSource, claim_settings

from tests.e2e.api_server import RealApiServer
from tests.e2e.claims import NAMESPACE, Claims, allow_claims_alone
from tests.support.waiting import until

NODE = "node-1"
NO_SELECTOR = "field label not supported: spec.nodeName"
"""What 1.20 says of the field selector of slices."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What an agent got, step by step, while rights were given to it."""

    without: Unavailable
    claims_alone: ClaimAnswer


async def refused(server: RealApiServer) -> Refusals:
    """Follow without a right, and on with the right to claims, which the account has from then."""
    claims = Claims(server)
    async with following(server, all_slices=False) as held:
        with pytest.raises(Unavailable) as refusal:
            await held.current()
        await asyncio.to_thread(create, claims, "alone")
        await asyncio.to_thread(allow_claims_alone, server)
        answer = await answered(
            held, "alone", lambda found: "forbidden" in str(found.attributes_error)
        )
        await asyncio.to_thread(claims.clear)
        return Refusals(refusal.value, answer)


@asynccontextmanager
async def following(
    server: RealApiServer, *, all_slices: bool = True, **changed: Any
) -> AsyncIterator[ClaimsApi]:
    """Follow as the agent does; of the slices all, or by the selector that 1.20 refuses."""
    login = ServiceAccount(server.url, str(server.ca_file), str(server.token_file))
    settings = replace(claim_settings(open_login(login)), **changed)
    slices = SliceSource(settings, NODE)
    if all_slices:
        slices._resource = replace(slices._resource, selector="")
    made = ClaimsApi(ClaimSource(settings, NODE), slices)
    made.start()
    try:
        yield made
    finally:
        await made.close()


def create(claims: Claims, name: str, *finalizers: str, **status: Any) -> str:
    """Create a claim and allocate it; return its UID."""
    uid = claims.create(name, *finalizers)
    claims.allocate(name, **status)
    return uid


async def answered(
    held: ClaimsApi, name: str, enough: Callable[[ClaimAnswer], bool]
) -> ClaimAnswer:
    """The first answer that is enough. An error alone is no new generation, so this polls."""

    def look() -> bool:
        with suppress(Unavailable):
            found.append(held.answer(NAMESPACE, name))
        return bool(found) and enough(found[-1])

    found: list[ClaimAnswer] = []
    await until(look)
    return found[-1]


async def device_of(held: ClaimsApi, name: str) -> ClaimDevice:
    """The device of a claim, once it is known with its attributes."""
    found = await answered(
        held, name, lambda found: found.requests is not None and found.attributes_error is None
    )
    return one_device(found)


def one_device(found: ClaimAnswer) -> ClaimDevice:
    assert found.requests is not None
    (request,) = found.requests
    (device,) = request.devices
    return device


def is_unknown(found: ClaimAnswer) -> bool:
    return found.requests is None


def has_reason(reason: str) -> Callable[[ClaimAnswer], bool]:
    def has(found: ClaimAnswer) -> bool:
        return [one.reason for one in one_device(found).conditions or ()] == [reason]

    return has


def is_ready(found: ClaimAnswer) -> bool:
    return [one.status for one in one_device(found).conditions or ()] == ["True"]
