"""Streams that fail or end: what is answered meanwhile, and when they are begun again."""

from __future__ import annotations

import asyncio
import logging

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.directory import PodDirectory

from tests.support.fakes.pushing_source import Clock, Pauses, PushingSource, broken, made
from tests.support.waiting import until

WEB = f"{1:032x}", f"{1:064x}"
NEW = f"{2:032x}", f"{2:064x}"
UNKNOWN = "f" * 32, "f" * 64


async def test_the_last_list_keeps_its_own_time_after_a_break(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.push(made("web"))
    before = (await pushed.refresh()).observed_at
    pushing.steps.put_nowait(broken())
    await pauses.next()
    match = await pushed.lookup(*WEB)
    assert match is not None
    assert match.observed_at == before
    assert pushed.last_error is not None
    assert pushed.stats.streaming == 0


async def test_an_unknown_caller_gets_a_retry_delay_after_a_break(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    pushing.steps.put_nowait(broken())
    pause = await pauses.next()
    for attempt in (pushed.lookup(*NEW), pushed.refresh()):
        with pytest.raises(Unavailable) as refused:
            await attempt
        assert refused.value.reason is Reason.POD_LIST_UNAVAILABLE
        assert refused.value.retry_after_seconds == pytest.approx(pause)


async def test_an_unknown_caller_waits_while_the_stream_restarts(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    pushing.steps.put_nowait(broken())
    await pauses.next()
    pauses.over.set()
    await until(lambda: pushing.streams == 2)
    waiting = asyncio.create_task(pushed.lookup(*NEW))
    await asyncio.sleep(0)
    pushing.push(made("web", "new"))
    assert await waiting
    assert pushed.last_error is None
    assert (pushed.stats.restarts, pushed.stats.failures) == (1, 1)


async def test_pauses_grow_to_the_longest_of_the_source(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.steps.put_nowait(broken())
    with pytest.raises(Unavailable):
        await pushed.refresh()
    asked = [await pauses.next()]
    for _ in range(8):
        pushing.steps.put_nowait(broken())
        pauses.over.set()
        asked.append(await pauses.next())
    longest = [min(0.5 * 2**number, 30.0) for number in range(9)]
    assert all(most / 2 <= pause <= most for pause, most in zip(asked, longest, strict=True))


async def test_a_requested_pause_is_kept_up_to_a_minute(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.steps.put_nowait(broken(retry_after_seconds=20))
    with pytest.raises(Unavailable):
        await pushed.refresh()
    assert await pauses.next() == 20
    pushing.steps.put_nowait(broken(retry_after_seconds=86400))
    pauses.over.set()
    assert await pauses.next() == 60


async def test_a_stream_that_lasted_resets_the_backoff(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses, clock: Clock
) -> None:
    pushing.steps.put_nowait(broken())
    with pytest.raises(Unavailable):
        await pushed.refresh()
    for _ in range(5):
        pushing.steps.put_nowait(broken())
        await pauses.next()
        pauses.over.set()
    await pauses.next()
    pauses.over.set()
    pushing.push(made("web"))
    await pushed.changed(0)
    clock.seconds += 60
    pushing.steps.put_nowait(broken())
    assert await pauses.next() <= 0.5


async def test_a_stream_that_ends_as_streams_do_is_no_failure(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses, clock: Clock
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    clock.seconds += 300
    pushing.steps.put_nowait(None)
    assert await pauses.next() <= 0.5
    assert pushed.last_error is None
    assert pushed.stats.failures == 0
    assert pushed.stats.streaming == 1
    assert await pushed.refresh()


async def test_streams_that_end_at_once_are_a_failure_and_back_off(
    pushing: PushingSource, pushed: PodDirectory, pauses: Pauses
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    for _ in range(6):
        pushing.steps.put_nowait(None)
        pause = await pauses.next()
        pauses.over.set()
    assert pause >= 4
    assert pushed.last_error is not None
    assert "ends as soon as it begins" in pushed.last_error.message


async def test_a_lasting_failure_is_logged_less_and_its_end_once(
    pushing: PushingSource,
    pushed: PodDirectory,
    pauses: Pauses,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    pushing.steps.put_nowait(broken())
    with pytest.raises(Unavailable):
        await pushed.refresh()
    for _ in range(20):
        pushing.steps.put_nowait(broken())
        await pauses.next()
        pauses.over.set()
    await pauses.next()
    pushing.push(made("web"))
    pauses.over.set()
    await pushed.changed(0)
    said = [record.levelname for record in caplog.records]
    assert said == ["WARNING"] * 5 + ["INFO"]


async def test_a_bug_of_a_source_is_a_failure_like_any_other(
    pushing: PushingSource,
    pushed: PodDirectory,
    pauses: Pauses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken_follow(take: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(pushing, "follow", broken_follow)
        with pytest.raises(Unavailable, match="unforeseen"):
            await pushed.refresh()
    await pauses.next()
    pauses.over.set()
    pushing.push(made("web"))
    await pushed.changed(0)
    assert await pushed.refresh()
