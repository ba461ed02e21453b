"""A snapshot that comes between two steps of a reader, or of `open`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from netutil.client import AsyncCached, Cached, Client
from netutil.client.cache.base import CacheBase, closed
from netutil.client.models.observation import Observation

from tests.support.fakes.agent import FakeAgent


@pytest.fixture
def observation(agent: FakeAgent) -> Observation:
    with Client(agent.path) as client, client.watch() as stream:
        return next(stream)


class Interrupted:
    """A double of a clock or a dictionary; calls a function before it answers."""

    def __init__(self, inner: Any, before: Callable[[], None]) -> None:
        self.inner = inner
        self.before = before

    def get(self, name: str) -> Any:
        found = self.inner.get(name)
        self.before()
        return found


def test_a_part_that_arrives_during_the_look_up_is_returned(observation: Observation) -> None:
    held = CacheBase(None)
    held._parts = Interrupted({}, lambda: held._receive(observation))  # type: ignore[assignment]
    assert held.cpu() is observation.snapshot.cpu


def test_stale_facts_are_not_fresh_after_a_late_snapshot(
    observation: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = CacheBase(None)
    held._receive(observation)
    held._lose(closed())
    newer = replace(observation, version=2)
    read = CacheBase.__getattribute__
    comes = [True]

    def reading(self: CacheBase, name: str) -> Any:
        found = read(self, name)
        # Whatever the reader has in hand first, the newer snapshot comes right after it.
        if name in ("_state", "_observation") and comes:
            comes.clear()
            held._receive(newer)
        return found

    monkeypatch.setattr(CacheBase, "__getattribute__", reading)
    assert not held.current().fresh
    assert held.current().fresh


def test_a_first_snapshot_at_the_deadline_opens_the_cache(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Cached(agent.path)
    wait = facts._first.wait

    def late(seconds: float | None = None) -> bool:
        assert wait(20)
        return False

    monkeypatch.setattr(facts._first, "wait", late)
    with facts:
        assert facts.fresh
        assert facts.pod().name
    assert not facts.fresh


async def test_the_same_of_the_cache_for_asyncio(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = AsyncCached(agent.path)
    wait = facts._first.wait

    async def late() -> None:
        await wait()
        raise TimeoutError

    monkeypatch.setattr(facts._first, "wait", late)
    async with facts:
        assert facts.fresh
        assert facts.pod().name
    assert not facts.fresh
    assert time.monotonic() > facts._state.received
