"""What the API server says of ResourceClaims, held and joined for answers.

Claims and slices are followed by one stream each. A claim is answered from the last lists. The
join is by the key that the API fixes: driver, pool, device and share.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

from netutil.agent.errors import Unavailable
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest, ClaimSource
from netutil.agent.pods.feed import DirectoryStats, Generation
from netutil.agent.pods.sources.base import StreamingSource, unavailable
from netutil.agent.pods.sources.claims_model import (
    Claim,
    Consumer,
    DeviceStatus,
    Pool,
    Result,
    Slice,
    SliceDevice,
    newest,
)
from netutil.agent.pods.streaming import Lists, StreamingFeed

Pools = Mapping[tuple[str, str], Pool]
"""What drivers have published, by driver and pool."""


@dataclass(frozen=True, slots=True)
class ClaimList:
    """The allocated claims by namespace and name, as they were at a time (UTC)."""

    claims: Mapping[tuple[str, str], Claim]
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class SliceList:
    """The pools of this node's slices, as they were at a time (UTC)."""

    pools: Pools
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    """What the API server says of one claim.

    `requests` is None for a claim that is not allocated for this node, or not known; of others
    `reserved_for` are those that may use the claim. `problem` says why a claim that is known cannot
    be read. `claims_error` says why the claims are not current,
    `attributes_error` why attributes are not known, or not current. `observed_at` is the time of
    the claims.
    """

    requests: tuple[ClaimRequest, ...] | None
    problem: str
    claims_error: Unavailable | None
    attributes_error: Unavailable | None
    observed_at: datetime
    uid: str = ""
    reserved_for: tuple[Consumer, ...] = ()


def requests_of(claim: Claim, pools: Pools) -> tuple[ClaimRequest, ...]:
    """Return the requests of a claim with their devices, in the order of the allocation."""
    statuses = {(one.driver, one.pool, one.device, one.share_id): one for one in claim.devices}
    found: dict[tuple[str, str], list[ClaimDevice]] = {}
    for result in claim.results:
        status = statuses.get((result.driver, result.pool, result.device, result.share_id))
        pool = pools.get((result.driver, result.pool))
        published = None if pool is None else pool.devices.get(result.device)
        made = _device(result, status, published)
        found.setdefault((result.request, result.driver), []).append(made)
    return tuple(
        ClaimRequest(
            "",
            claim.name,
            claim.namespace,
            claim_uid=claim.uid,
            request=request,
            driver=driver,
            source=ClaimSource.API_SERVER,
            devices=tuple(made),
        )
        for (request, driver), made in found.items()
    )


def _device(
    result: Result, status: DeviceStatus | None, published: SliceDevice | None
) -> ClaimDevice:
    return ClaimDevice(
        result.pool,
        result.device,
        None if published is None else published.attributes,
        None if status is None else status.network_data,
        result.share_id,
        None if status is None else status.conditions,
    )


class ClaimsApi:
    """Follows claims and slices from `start` on. Used on one event loop."""

    def __init__(
        self,
        claims: StreamingSource[Claim],
        slices: StreamingSource[Slice],
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`on_change` is called when claims or slices may say something else."""
        self.claim_stats, self.slice_stats = DirectoryStats(), DirectoryStats()
        self._changes = Generation(on_change)
        self._claims = StreamingFeed(
            claims, CLAIM_LISTS, self.claim_stats, self._changes, clock, sleep
        )
        self._slices = StreamingFeed(
            slices, SLICE_LISTS, self.slice_stats, self._changes, clock, sleep
        )
        self._source = claims
        self._following = ExitStack()

    @property
    def generation(self) -> int:
        """Return a number that grows with each change."""
        return self._changes.generation

    def __len__(self) -> int:
        """Return how many claims are held."""
        return len(self._claims.last.claims) if self._claims.last is not None else 0

    @property
    def is_current(self) -> bool:
        """Return whether both streams are there and healthy."""
        return bool(self.claim_stats.streaming and self.slice_stats.streaming)

    @property
    def unconfirmed_seconds(self) -> float:
        """Return how long ago both were last known to be complete, 0 before the first lists."""
        return max(self.claim_stats.unconfirmed_seconds, self.slice_stats.unconfirmed_seconds)

    @property
    def failures(self) -> int:
        """Return how often one of the streams failed."""
        return self.claim_stats.failures + self.slice_stats.failures

    def describe(self) -> str:
        """Return where claims are followed."""
        return self._source.describe()

    @property
    def error(self) -> Unavailable | None:
        """Return why claims or slices are not current now, None if they are."""
        return self._claims.last_error or self._slices.last_error

    def start(self) -> None:
        """Follow both streams from now on. Called on the event loop."""
        self._following.enter_context(self._claims.keep_fresh())
        self._following.enter_context(self._slices.keep_fresh())

    async def changed(self, seen: int) -> int:
        """Return the generation once it is another than was seen."""
        while self._changes.generation == seen:
            await self._changes.wait()
        return self._changes.generation

    async def current(self) -> None:
        """Return when the claims are current. Raises `Unavailable`. Waits without a bound."""
        await self._claims.wait_current()

    def answer(self, namespace: str, name: str) -> ClaimAnswer:
        """Return what the API server says of a claim, by the last lists.

        Raises `Unavailable` before the first list of claims, and for a claim that a list lacks
        that is not current.
        """
        claims = self._claims.last
        if claims is None:
            raise self._claims.last_error or unavailable(
                "The API server's claims have not been listed yet.",
                self._source.describe(),
                "Ask again.",
            )
        claim = claims.claims.get((namespace, name))
        if claim is None and (error := self._claims.last_error) is not None:
            raise error
        slices = self._slices.last
        requests, problem = None, ""
        if claim is not None:
            problem = claim.problem
            requests = None if problem else requests_of(claim, slices.pools if slices else {})
        return ClaimAnswer(
            requests,
            problem,
            self._claims.last_error,
            self._slices.last_error or self._unpublished(claim),
            claims.observed_at,
            uid="" if claim is None else claim.uid,
            reserved_for=() if claim is None else claim.reserved_for,
        )

    def _unpublished(self, claim: Claim | None) -> Unavailable | None:
        """Return why the last slices do not have the attributes of a claim, None if they may."""
        slices = self._slices.last
        if slices is None:
            return unavailable(
                "The API server's slices have not been listed yet.",
                self._source.describe(),
                "Ask again.",
            )
        for result in claim.results if claim is not None else ():
            pool = slices.pools.get((result.driver, result.pool))
            if pool is not None and not pool.is_complete and result.device not in pool.devices:
                return unavailable(
                    f"Driver {result.driver} has published {pool.slices} of {pool.slice_count}"
                    f" slices of pool {result.pool}, generation {pool.generation}; device"
                    f" {result.device} is in none of these.",
                    self._source.describe(),
                    "Ask again: a driver publishes the slices of a generation one by one.",
                )
        return None

    async def close(self) -> None:
        """End both streams."""
        self._following.close()
        await asyncio.gather(self._claims.close(), self._slices.close())


def _claim_list(claims: Iterable[Claim], observed_at: datetime) -> ClaimList:
    return ClaimList({(one.namespace, one.name): one for one in claims}, observed_at)


def _slice_list(slices: Iterable[Slice], observed_at: datetime) -> SliceList:
    return SliceList(newest(slices), observed_at)


def _claims_of(found: ClaimList, observed_at: datetime) -> ClaimList:
    return replace(found, observed_at=observed_at)


def _slices_of(found: SliceList, observed_at: datetime) -> SliceList:
    return replace(found, observed_at=observed_at)


CLAIM_LISTS: Lists[Claim, ClaimList] = Lists(_claim_list, _claims_of)
SLICE_LISTS: Lists[Slice, SliceList] = Lists(_slice_list, _slices_of)
