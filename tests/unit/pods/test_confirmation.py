"""A stream that says nothing proves nothing: when it is compared with a list, and what follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.sources.base import Comparison, ConfirmTiming, unavailable

from tests.support.fakes.pushing_source import Pauses, PushingSource, broken, made
from tests.support.waiting import until

WEB = f"{1:032x}", f"{1:064x}"
UNKNOWN = "f" * 32, "f" * 64
# Nothing is due within a test, but what an unknown caller asks for.
LATER = ConfirmTiming(quiet_seconds=600, resumed_seconds=0, grace_seconds=0.02)
SOON = replace(LATER, quiet_seconds=0.02, jitter_seconds=0.02)


def lacking(*uids: str, asked_at: datetime | None = None) -> Comparison:
    differences = frozenset((uid, "7", "8") for uid in uids)
    return Comparison(asked_at or datetime.now(UTC), differences)


@asynccontextmanager
async def following(source: PushingSource) -> AsyncIterator[PodDirectory]:
    directory = PodDirectory(source, 10)
    source.push(made("web"))
    await directory.refresh()
    try:
        yield directory
    finally:
        await directory.close()


async def test_a_quiet_stream_is_compared_and_has_the_lists_time() -> None:
    source = PushingSource(SOON)
    async with following(source) as directory:
        before = directory.last
        await until(lambda: directory.stats.comparisons >= 3)
        assert before is not None and directory.last is not None
        assert directory.last.observed_at > before.observed_at
        assert (directory.generation, source.streams, directory.stats.missed) == (1, 1, 0)


async def test_changes_between_two_reads_of_the_list_are_no_difference() -> None:
    source = PushingSource(SOON)
    source.lists = [lacking("a", "b"), lacking("c")]  # a and b have come, c is on its way
    async with following(source) as directory:
        await until(lambda: source.compared >= 3)
        assert (directory.stats.missed, source.started_over) == (0, 0)


async def test_a_stream_that_lacks_a_listed_pod_begins_again() -> None:
    source = PushingSource(SOON)
    source.lists = [lacking("a", "b"), lacking("b", "c")]
    async with following(source) as directory:
        await until(lambda: source.started_over == 1)
        await until(lambda: directory.last_error is not None)
        assert directory.last_error is not None
        assert directory.last_error.message == (
            "The stream of pods did not bring 1 of the changes that a list of the same pods has."
        )
        assert directory.stats.streaming == 0
        source.push(made("web", "new"))
        await directory.changed(1)
        assert directory.last_error is None
        assert (directory.stats.missed, directory.stats.failures) == (1, 1)
        assert (source.streams, directory.stats.streaming) == (2, 1)


async def test_versions_that_went_back_need_no_second_look() -> None:
    source = PushingSource(SOON)
    source.lists = [Comparison(datetime.now(UTC), went_back=True)]
    async with following(source) as directory:
        await until(lambda: source.started_over == 1)
        assert source.compared == 1
        await until(lambda: directory.last_error is not None)
        assert directory.last_error is not None
        assert "resource versions of the API server went back" in directory.last_error.message
        assert "restored from a backup" in directory.last_error.advice


async def test_an_unknown_caller_causes_a_comparison_and_stays_unknown() -> None:
    source = PushingSource(LATER)
    async with following(source) as directory:
        assert await directory.lookup(*UNKNOWN, timeout_seconds=0.2) is None
        assert source.compared == 1


async def test_an_unknown_caller_whose_pod_the_stream_lost_is_answered() -> None:
    source = PushingSource(LATER)
    source.lists = [lacking("new"), lacking("new")]
    async with following(source) as directory:
        waiting = asyncio.create_task(directory.lookup(f"{2:032x}", f"{2:064x}"))
        await until(lambda: source.streams == 2)
        source.push(made("web", "new"))
        match = await waiting
        assert match is not None
        assert match.pod.metadata.name == "new"


async def test_a_known_caller_causes_none() -> None:
    source = PushingSource(LATER)
    async with following(source) as directory:
        assert await directory.lookup(*WEB)
        assert source.compared == 0


async def test_an_unknown_caller_is_not_refused_without_a_list() -> None:
    source = PushingSource(LATER)
    source.lists = [unavailable("It is overloaded.", "there", "Wait.")]
    async with following(source) as directory:
        with pytest.raises(Unavailable, match="overloaded") as refused:
            await directory.lookup(*UNKNOWN, timeout_seconds=0.2)
        assert refused.value.reason is Reason.POD_LIST_UNAVAILABLE
        assert await directory.lookup(*WEB)
        assert directory.stats.streaming == 1


async def test_many_unknown_callers_cause_few_comparisons() -> None:
    source = PushingSource(replace(LATER, unknown_burst=3, unknown_seconds=600))
    async with following(source) as directory:
        for _ in range(4):
            await asyncio.gather(
                *(directory.lookup(*UNKNOWN, timeout_seconds=0.05) for _ in range(50))
            )
        assert source.compared == 3


async def test_a_continued_stream_is_compared_before_it_is_silent() -> None:
    source = PushingSource(replace(LATER, resumed_seconds=0.05))
    source.resumes = True
    async with following(source) as directory:
        source.steps.put_nowait(broken())
        await until(lambda: source.streams == 2)
        source.lists = [unavailable("No list yet.", "there", "Wait.")]
        source.push(made("web"))
        await until(lambda: source.compared == 1)
        assert directory.stats.streaming == 0
        await until(lambda: directory.stats.streaming == 1)
        assert source.compared == 2
        assert directory.last_error is None


async def test_no_caller_is_refused_on_a_continued_streams_word() -> None:
    source = PushingSource(replace(LATER, resumed_seconds=600, unknown_burst=0))
    source.resumes = True
    async with following(source) as directory:
        await asyncio.sleep(1.1)  # a stream that lasts so long and ends is no failure
        source.steps.put_nowait(None)
        await until(lambda: source.streams == 2)
        source.push(made("web"))
        with pytest.raises(Unavailable):
            await directory.lookup(*UNKNOWN, timeout_seconds=0.1)
        assert await directory.lookup(*WEB)
        assert (source.compared, directory.stats.streaming) == (0, 1)


async def test_a_continued_streams_pods_have_the_last_lists_time() -> None:
    source = PushingSource(replace(LATER, resumed_seconds=600))
    source.resumes = True
    async with following(source) as directory:
        assert directory.last is not None
        before = directory.last.observed_at
        source.steps.put_nowait(broken())
        await until(lambda: source.streams == 2)
        source.push(made("web", "new"))
        await directory.changed(1)
        assert len(directory.last.pods) == 2
        assert directory.last.observed_at == before
        assert directory.stats.streaming == 0


async def test_an_unconfirmed_stream_is_not_healthy() -> None:
    timing = replace(SOON, max_unconfirmed_seconds=0.3)
    source = PushingSource(timing)
    refusal = unavailable("It is overloaded.", "there", "Wait.")
    source.lists = [refusal] * 3
    async with following(source) as directory:
        assert directory.unconfirmed is None
        await until(lambda: directory.stats.streaming == 0)
        error = directory.unconfirmed
        assert error is not None
        assert "no list has confirmed that the stream of pods is complete" in error.message
        assert "The last try failed: It is overloaded." in error.message
        with pytest.raises(Unavailable):
            await directory.refresh()
        assert await directory.lookup(*WEB)
        await until(lambda: directory.stats.streaming == 1)
        assert directory.unconfirmed is None
        assert await directory.refresh()


async def test_an_event_confirms_a_stream_that_began_with_all_pods() -> None:
    source = PushingSource(replace(LATER, max_unconfirmed_seconds=0.3))
    async with following(source) as directory:
        for _ in range(8):
            await asyncio.sleep(0.1)
            source.push(made("web"))
            assert directory.stats.streaming == 1
        assert source.compared == 0


async def test_a_comparison_begun_with_another_stream_proves_nothing() -> None:
    source = PushingSource(replace(LATER, resumed_seconds=0.3))
    source.resumes = True
    answer: asyncio.Future[Comparison] = asyncio.get_running_loop().create_future()

    async def compare() -> Comparison:
        source.compared += 1
        return await asyncio.shield(answer) if source.compared == 1 else lacking("a")

    source.compare = compare  # type: ignore[method-assign]
    async with following(source) as directory:
        waiting = asyncio.create_task(directory.lookup(*UNKNOWN, timeout_seconds=0.2))
        await until(lambda: source.compared == 1)
        source.steps.put_nowait(broken())
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: source.streams == 2)
        source.push(made("web"))
        await asyncio.sleep(0)
        answer.set_result(Comparison(datetime.now(UTC) + timedelta(hours=1)))
        await until(lambda: source.started_over == 1)
        assert directory.last is not None
        assert directory.last.observed_at < datetime.now(UTC)


async def test_a_difference_between_two_streams_spares_the_next() -> None:
    source = PushingSource(LATER)
    answer: asyncio.Future[Comparison] = asyncio.get_running_loop().create_future()

    async def compare() -> Comparison:
        source.compared += 1
        return await asyncio.shield(answer)

    source.compare = compare  # type: ignore[method-assign]
    pauses = Pauses()
    directory = PodDirectory(source, 10, sleep=pauses)
    source.push(made("web"))
    await directory.refresh()
    waiting = asyncio.create_task(directory.lookup(*UNKNOWN, timeout_seconds=0.2))
    await until(lambda: source.compared == 1)
    await asyncio.sleep(1.1)  # a stream that lasts so long and ends is no failure
    source.steps.put_nowait(None)
    await pauses.next()
    answer.set_result(Comparison(datetime.now(UTC), went_back=True))
    await until(lambda: source.started_over == 1)
    source.steps.get_nowait()  # there was no stream to end
    pauses.over.set()
    source.push(made("web", "new"))
    await directory.changed(1)
    assert directory.stats.streaming == 1
    assert directory.last_error is None
    await asyncio.gather(waiting, return_exceptions=True)
    await directory.close()


async def test_a_bug_of_a_comparison_is_a_failure_like_any_other() -> None:
    source = PushingSource(SOON)
    source.lists = [ZeroDivisionError()]
    async with following(source) as directory:
        await until(lambda: source.compared >= 2)
        assert directory.stats.streaming == 1


async def test_close_ends_a_comparison_that_hangs() -> None:
    source = PushingSource(SOON)

    async def compare() -> Comparison:
        source.compared += 1
        await asyncio.Event().wait()
        raise AssertionError

    source.compare = compare  # type: ignore[method-assign]
    async with following(source):
        await until(lambda: source.compared == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 2
