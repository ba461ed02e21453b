"""The promises of the caches: immediate, marked stale, self-restoring, never after a fork."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import timeit
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from subprocess import run
from typing import Any

import grpc
import pytest
from netutil.client import (
    AsyncCached,
    AsyncClient,
    Cached,
    Client,
    FailedPrecondition,
    NotFound,
    Observation,
    Unavailable,
    Unreachable,
)
from netutil.client.cache.base import CacheBase
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.devices import everything
from tests.support.fakes.agent import FakeAgent, Refusal, serving
from tests.support.waiting import until

SYNC, ASYNC = "sync", "async"
KINDS = pytest.mark.parametrize("kind", [SYNC, ASYNC])
RESTARTING = Refusal(grpc.StatusCode.UNAVAILABLE, reason="AGENT_RESTARTING")


@asynccontextmanager
async def cached(
    kind: str, path: str, on_change: Callable[[Observation], object] | None = None
) -> AsyncIterator[CacheBase]:
    """An open cache of that kind."""
    if kind == ASYNC:
        async with AsyncCached(path, 5.0, on_change) as facts:
            yield facts
    else:
        cache = Cached(path, 5.0, on_change)
        await asyncio.to_thread(cache.open)
        try:
            yield cache
        finally:
            await asyncio.to_thread(cache.close)


def news(cpuset: str, version: int = 2) -> api.WatchResponse:
    facts = everything()
    facts.cpu.cpuset = cpuset
    facts.ClearField("environment")
    return api.WatchResponse(snapshot=facts, version=version, changed=["cpu"])


@KINDS
async def test_it_answers_what_a_client_answers(kind: str, agent: FakeAgent) -> None:
    async with AsyncClient(agent.path) as client, cached(kind, agent.path) as facts:
        assert facts.cpu() == await client.cpu(topology=True)
        assert facts.environment() == await client.environment()
        assert facts.network_status() == await client.network_status()
        assert facts.pod() == await client.pod()
        assert facts.interfaces() == await client.interfaces()
        assert facts.hugepages() == await client.hugepages()
        assert facts.resources() == await client.resources()
        current = facts.current()
        assert current.facts == await client.all()
        assert current.fresh and facts.fresh and facts.lost is None
        assert 0 <= current.age_seconds <= facts.age_seconds < 20


@KINDS
async def test_a_change_replaces_the_facts_and_keeps_the_environment(
    kind: str, agent: FakeAgent
) -> None:
    observations: list[Observation] = []
    async with cached(kind, agent.path, observations.append) as facts:
        before = facts.environment()
        agent.news.put(news("7"))
        await until(lambda: facts.cpu().cpuset == "7")
        await until(lambda: len(observations) == 1)
        assert observations[0].changed == ("cpu",)
        assert facts.environment() == before


@KINDS
async def test_a_callback_that_fails_ends_nothing(
    kind: str, agent: FakeAgent, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Observation) -> None:
        raise ZeroDivisionError

    async with cached(kind, agent.path, failing) as facts:
        for cpuset in ("6", "7"):
            agent.news.put(news(cpuset))
            await until(lambda wanted=cpuset: facts.cpu().cpuset == wanted)  # type: ignore[misc]
    assert "on_change failed" in caplog.text


@KINDS
async def test_it_survives_a_restart_and_is_stale_meanwhile(kind: str, socket_path: str) -> None:
    observations: list[Observation] = []
    first, second = FakeAgent(socket_path), FakeAgent(socket_path)
    second.everything.cpu.cpuset = "5"
    second.everything.pod.observed_at.seconds += 60  # no change
    with serving(first):
        task = cached(kind, socket_path, observations.append)
        facts = await task.__aenter__()
        first.news.put(RESTARTING)
        await until(lambda: not facts.fresh)
        assert facts.lost is not None and facts.lost.reason == "AGENT_RESTARTING"
    assert facts.cpu().cpuset == "0-3,8"  # with no agent at all
    assert not facts.current().fresh
    age = facts.age_seconds
    with serving(second):
        await until(lambda: facts.fresh)
        assert facts.cpu().cpuset == "5"
        assert facts.age_seconds < age + 20
        await until(lambda: len(observations) == 1)
        assert observations[0].changed == ("cpu",)
        await task.__aexit__(None, None, None)


@KINDS
async def test_a_part_that_failed_is_raised_as_its_own_call_would(
    kind: str, agent: FakeAgent
) -> None:
    agent.everything.ClearField("network_status")
    agent.everything.errors.add(
        part="network_status",
        code="FAILED_PRECONDITION",
        reason="NETWORK_STATUS_MALFORMED",
        message="No.",
    )
    async with cached(kind, agent.path) as facts:
        with pytest.raises(FailedPrecondition, match=r"No\.") as raised:
            facts.network_status()
        assert raised.value.reason == "NETWORK_STATUS_MALFORMED"
        assert facts.cpu().cpuset == "0-3,8"


@KINDS
async def test_opening_fails_with_the_reason_without_an_agent(kind: str, directory: str) -> None:
    async def opened() -> None:
        async with AsyncCached(f"{directory}/none/net.sock", 0.5):
            pass

    def opened_sync() -> None:
        with Cached(f"{directory}/none/net.sock", 0.5):
            pass

    attempt: Awaitable[Any] = opened() if kind == ASYNC else asyncio.to_thread(opened_sync)
    with pytest.raises(Unreachable):
        await attempt


@KINDS
async def test_reading_fails_before_the_first_snapshot(kind: str, directory: str) -> None:
    cache = (Cached if kind == SYNC else AsyncCached)(f"{directory}/net.sock")
    with pytest.raises(Unavailable) as raised:
        cache.cpu()
    assert raised.value.reason == "NO_SNAPSHOT_YET"
    assert not cache.fresh


@KINDS
async def test_no_answer_is_given_in_a_forked_process(
    kind: str, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cached(kind, agent.path) as facts:
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: 4711)
            for read in (facts.cpu, facts.pod, facts.current, lambda: facts.fresh):
                with pytest.raises(RuntimeError, match="make a new one after a fork"):
                    read()


FORKING = """
import os, sys
from netutil.client import Cached
facts = Cached(sys.argv[1]); facts.open()
assert facts.pod().name
sys.stdout.flush()
child = os.fork()
if child == 0:
    try:
        facts.pod()
    except RuntimeError:
        facts.close()  # harmless: the connection is the parent's
        os._exit(7)
    os._exit(1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert facts.fresh and facts.pod().name
facts.close()
sys.exit(code)
"""


def test_a_pre_forking_server_gets_an_error_its_parent_none(agent: FakeAgent) -> None:
    done = run(
        [sys.executable, "-c", FORKING, agent.path], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 7, done.stderr.decode()


@KINDS
async def test_reading_again_costs_a_look_up(kind: str, agent: FakeAgent) -> None:
    async with cached(kind, agent.path) as facts, AsyncClient(agent.path) as client:
        await client.cpu()
        begun = time.perf_counter()
        for _ in range(20):
            await client.cpu()
        asked = (time.perf_counter() - begun) / 20
        read = min(timeit.repeat(lambda: facts.cpu().cpuset, number=20_000, repeat=5)) / 20_000
        whole = min(timeit.repeat(facts.current, number=20_000, repeat=5)) / 20_000
        print(f"{kind}: cpu().cpuset {read * 1e6:.2f} us, current() {whole * 1e6:.2f} us")
        assert read < asked / 100


def test_a_cache_that_is_closed_leaves_no_thread(agent: FakeAgent) -> None:
    with Cached(agent.path) as facts:
        assert facts.fresh
        assert "netutil-watch" in {thread.name for thread in threading.enumerate()}
    assert "netutil-watch" not in {thread.name for thread in threading.enumerate()}
    facts.close()
    assert not facts.fresh
    assert facts.lost is not None and facts.lost.reason == "CACHE_CLOSED"
    assert facts.cpu().cpuset == "0-3,8"
    with pytest.raises(RuntimeError, match="opened before"):
        facts.open()


def test_a_stream_ends_with_what_the_agent_says(agent: FakeAgent) -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, reason="POD_GONE")
    agent.news.put(refusal)
    with Client(agent.path) as client, client.watch() as stream:
        assert next(stream).version == 1
        with pytest.raises(NotFound) as raised:
            next(stream)
        assert raised.value.reason == "POD_GONE"


def test_a_stream_that_is_closed_ends_its_iteration(agent: FakeAgent) -> None:
    with Client(agent.path) as client, client.watch() as stream:
        next(stream)
        stream.close()
        assert list(stream) == []
