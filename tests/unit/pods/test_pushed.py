"""The answers of a directory with a source that pushes, during its stream and after it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from netutil.agent.errors import FailedPrecondition, Reason, Unavailable
from netutil.agent.pods.directory import PodDirectory

from tests.support.fakes.pushing_source import Clock, PushingSource, made
from tests.support.waiting import until

WEB = f"{1:032x}", f"{1:064x}"
NEW = f"{2:032x}", f"{2:064x}"
UNKNOWN = "f" * 32, "f" * 64


async def test_nothing_is_followed_before_a_first_call(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    await asyncio.sleep(0)
    assert pushing.streams == 0
    assert pushed.last is None


async def test_the_first_caller_waits_for_the_first_list(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    waiting = [asyncio.create_task(pushed.lookup(*WEB)) for _ in range(50)]
    await asyncio.sleep(0)
    pushing.push(made("web"))
    found = await asyncio.gather(*waiting)
    assert {match.container_name for match in found if match} == {"app"}
    assert pushing.streams == 1


async def test_a_known_caller_is_answered_at_once_however_old_the_list(
    pushing: PushingSource, pushed: PodDirectory, clock: Clock
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    clock.seconds += 3600
    async with asyncio.timeout(0):
        assert await pushed.lookup(*WEB)


async def test_an_unknown_caller_is_answered_as_soon_as_it_is_pushed(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    waiting = asyncio.create_task(pushed.lookup(*NEW, need_container=True))
    await asyncio.sleep(0)
    pushing.push(made("web", "new"))
    match = await waiting
    assert match is not None
    assert match.pod.metadata.name == "new"


async def test_a_caller_that_a_healthy_stream_never_brings_is_none(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    assert await pushed.lookup(*UNKNOWN, timeout_seconds=0.05) is None


async def test_a_pod_whose_container_does_not_come_is_answered_alone(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    pushing.push(made("web"))
    await pushed.refresh()
    match = await pushed.lookup(WEB[0], "e" * 64, timeout_seconds=0.05, need_container=True)
    assert match is not None
    assert (match.pod.metadata.name, match.container_name) == ("web", "")


async def test_a_contradiction_that_stays_is_an_error(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    pushing.push(made("web", "new"))
    await pushed.refresh()
    with pytest.raises(FailedPrecondition):
        await pushed.lookup(WEB[0], NEW[1], timeout_seconds=0.05)


async def test_a_caller_before_any_list_gets_its_error_in_time(pushed: PodDirectory) -> None:
    with pytest.raises(Unavailable):
        await pushed.lookup(*WEB, timeout_seconds=0.05)


async def test_one_callers_cancellation_does_not_end_anothers_wait(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    first, second = (asyncio.create_task(pushed.lookup(*WEB)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    pushing.push(made("web"))
    assert await second
    assert not pushing.cancelled


async def test_the_list_has_the_time_of_its_last_confirmation(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    times = iter(datetime(2026, 1, 1, 12, minute, tzinfo=UTC) for minute in range(3))
    pushing.now = lambda: next(times)
    pods = pushing.push(made("web"))
    await pushed.refresh()
    assert (await pushed.refresh()).observed_at.minute == 0
    pushing.push(pods)  # the same object: nothing has changed
    pushing.push(pods)
    await until(pushing.steps.empty)
    await asyncio.sleep(0)
    match = await pushed.lookup(*WEB)
    assert match is not None
    assert match.observed_at.minute == 2
    assert pushed.generation == 1


async def test_a_burst_of_changes_is_shown_once_with_its_last_list(
    pushing: PushingSource, pushed: PodDirectory
) -> None:
    pushing.push(made("web"))
    seen = await pushed.changed(0)
    for number in range(100):
        pushing.push(made("web", f"new-{number}"))
    await pushed.changed(seen)
    assert pushed.generation == seen + 1
    assert pushed.last is not None
    assert pushed.last.pods[-1].metadata.name == "new-99"


async def test_close_ends_the_stream_and_fails_all_waiters(pushing: PushingSource) -> None:
    pushed = PodDirectory(pushing, 10)
    pushing.push(made("web"))
    await pushed.refresh()
    waiting = asyncio.create_task(pushed.lookup(*UNKNOWN))
    await asyncio.sleep(0)
    await pushed.close()
    with pytest.raises(Unavailable) as refused:
        await waiting
    assert refused.value.reason is Reason.AGENT_RESTARTING
    assert pushing.cancelled and pushing.closed
    assert await pushed.lookup(*WEB)
