"""The kubelet's pods, pushed: what is followed, what is waited for, and what failures say."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.sources.base import ConfirmTiming
from netutil.podsapi.v1alpha1 import pods_pb2

from tests.support.fakes.podsapi import KubeletDouble, following, pod
from tests.support.waiting import until

QUICK = ConfirmTiming(
    quiet_seconds=0.05, jitter_seconds=0.05, grace_seconds=0.1, max_unconfirmed_seconds=0.5
)


def names(directory: PodDirectory) -> set[str]:
    return {one.metadata.name for one in directory.last.pods} if directory.last else set()


async def shown(directory: PodDirectory, *expected: str) -> None:
    async with asyncio.timeout(60):
        while names(directory) != set(expected):
            await directory.changed(directory.generation)


class TestFollowing:
    async def test_all_pods_come_together_and_then_each_change(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"), pod(2, "db"))
        async with kubelet.serving(), following(path) as directory:
            await directory.refresh()
            assert (directory.generation, names(directory)) == (1, {"web", "db"})
            kubelet.put(pod(3, "new"))
            await shown(directory, "web", "db", "new")
            kubelet.delete(pod(1))
            await shown(directory, "db", "new")
            seen = directory.generation
            kubelet.put(pod(2, "db", {"example.com/a": "b"}))
            await directory.changed(seen)
            match = await directory.lookup(f"{2:032x}", f"{2:064x}")
            assert match is not None
            assert match.pod.metadata.annotations == {"example.com/a": "b"}
            assert (match.container_name, kubelet.watches) == ("app", 1)

    async def test_nothing_is_shown_before_the_kubelet_sent_all_pods(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        kubelet.syncs = False
        async with kubelet.serving(), following(path) as directory:
            waiting = asyncio.create_task(directory.refresh())
            await until(lambda: kubelet.watches == 1)
            kubelet.put(pod(2, "new"))
            await asyncio.sleep(0.05)
            assert directory.last is None
            kubelet.send(pods_pb2.INITIAL_SYNC_COMPLETE, b"")
            assert {one.metadata.name for one in (await waiting).pods} == {"web", "new"}

    async def test_a_node_without_pods_has_an_empty_list(self, path: Path) -> None:
        kubelet = KubeletDouble(path)
        async with kubelet.serving(), following(path) as directory:
            assert (await directory.refresh()).pods == ()
            assert await directory.lookup("f" * 32, None, timeout_seconds=0.05) is None

    async def test_an_unknown_caller_is_answered_when_its_pod_is_pushed(self, path: Path) -> None:
        kubelet = KubeletDouble(path)
        async with kubelet.serving(), following(path) as directory:
            await directory.refresh()
            waiting = asyncio.create_task(directory.lookup(f"{1:032x}", f"{1:064x}"))
            await asyncio.sleep(0)
            kubelet.put(pod(1, "web"))
            assert await waiting

    async def test_a_pod_that_cannot_be_read_takes_nothing_from_the_others(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        kubelet.before = [pods_pb2.WatchPodsEvent(type=pods_pb2.ADDED, pod=b"\xff\xff")]
        async with kubelet.serving(), following(path) as directory:
            await directory.refresh()
            assert names(directory) == {"web"}
        assert "left out; the first, it is no Pod" in caplog.text

    async def test_a_type_of_event_that_is_not_known_yet_changes_nothing(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving(), following(path) as directory:
            await directory.refresh()
            kubelet.send(pods_pb2.EventType.ValueType(9), b"")
            kubelet.put(pod(2, "new"))
            await shown(directory, "web", "new")

    async def test_a_renewed_stream_repairs_a_lost_event(self, path: Path) -> None:
        """So that an event that was lost is made good."""
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving(), following(path, stream_seconds=1.1) as directory:
            await directory.refresh()
            del kubelet.pods[f"{1:032x}"]  # without an event
            await until(lambda: kubelet.watches >= 2)
            await shown(directory)
            seen = directory.generation
            await until(lambda: kubelet.watches >= 3)
            assert directory.generation == seen
            assert directory.stats.failures == 0

    async def test_a_quiet_stream_is_confirmed_by_a_list(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving(), following(path, confirm=QUICK) as directory:
            before = (await directory.refresh()).observed_at
            await until(lambda: kubelet.lists >= 3)
            assert directory.last is not None
            assert directory.last.observed_at > before
            assert (directory.generation, kubelet.watches) == (1, 1)


class TestCompared:
    async def test_an_event_that_the_kubelet_dropped_is_recovered(self, path: Path) -> None:
        """It drops those of a reader that is slow, and says nothing."""
        kubelet = KubeletDouble(path, pod(1, "web"), pod(2, "deleted"))
        async with kubelet.serving(), following(path, confirm=QUICK) as directory:
            await directory.refresh()
            kubelet.pods[f"{3:032x}"] = pod(3, "new")
            del kubelet.pods[f"{2:032x}"]
            await shown(directory, "web", "new")
            assert (directory.stats.missed, kubelet.watches) == (1, 2)
            assert directory.last_error is None

    async def test_an_unknown_caller_causes_a_list_and_is_answered(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        timing = replace(QUICK, quiet_seconds=600, max_unconfirmed_seconds=600)
        async with kubelet.serving(), following(path, confirm=timing) as directory:
            await directory.refresh()
            kubelet.pods[f"{3:032x}"] = pod(3, "new")
            match = await directory.lookup(f"{3:032x}", f"{3:064x}")
            assert match is not None
            assert match.pod.metadata.name == "new"

    async def test_changes_that_the_stream_brings_are_no_difference(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"), pod(2, "deleted"))
        async with kubelet.serving(), following(path, confirm=QUICK) as directory:
            await directory.refresh()
            for number in range(20):
                kubelet.put(pod(1, "web", {"example.com/number": str(number)}))
                await asyncio.sleep(0.02)
            kubelet.delete(pod(2))
            await until(lambda: directory.stats.comparisons >= 5)
            assert (directory.stats.missed, kubelet.watches) == (0, 1)

    async def test_a_pod_that_cannot_be_read_is_no_difference(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        kubelet.unreadable = [b"\xff\xff"]
        async with kubelet.serving(), following(path, confirm=QUICK) as directory:
            await directory.refresh()
            await until(lambda: directory.stats.comparisons >= 3)
            assert directory.stats.missed == 0

    async def test_the_same_pod_in_other_bytes_is_no_difference(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving(), following(path, confirm=QUICK) as directory:
            await directory.refresh()
            # metadata.generation: nothing that the agent reads
            kubelet.pods[f"{1:032x}"].metadata.MergeFromString(b"\x38\x07")
            await until(lambda: directory.stats.comparisons >= 3)
            assert directory.stats.missed == 0


class TestAfterAFailure:
    async def test_a_socket_that_appears_later_is_found(self, path: Path) -> None:
        async with following(path) as directory:
            with pytest.raises(Unavailable):
                await directory.refresh()
            kubelet = KubeletDouble(path, pod(1, "web"))
            async with kubelet.serving():
                await directory.changed(0)
                assert names(directory) == {"web"}
                assert directory.last_error is None

    async def test_the_last_list_answers_while_the_kubelet_restarts(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with following(path) as directory:
            async with kubelet.serving():
                before = (await directory.refresh()).observed_at
            await until(lambda: directory.last_error is not None)
            match = await directory.lookup(f"{1:032x}", f"{1:064x}")
            assert match is not None
            assert match.observed_at == before
            with pytest.raises(Unavailable):
                await directory.lookup(f"{2:032x}", f"{2:064x}")
            again = KubeletDouble(path, pod(2, "new"))
            again.refusal = grpc.StatusCode.FAILED_PRECONDITION, "Kubelet is initializing"
            async with again.serving():
                await until(lambda: again.watches > 0)
                assert names(directory) == {"web"}
                again.refusal = None
                await shown(directory, "new")

    async def test_a_reader_dropped_as_too_slow_starts_again(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving(), following(path) as directory:
            await directory.refresh()
            kubelet.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "watch client channel closed")
            await until(lambda: directory.last_error is not None)
            kubelet.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert kubelet.watches == 2

    async def test_the_last_list_answers_while_the_kubelet_hangs(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        kubelet.stuck = True
        async with (
            kubelet.serving(),
            following(path, list_seconds=0.1, confirm=QUICK) as directory,
        ):
            await directory.refresh()
            await until(lambda: directory.last_error is not None)
            assert directory.stats.streaming == 0
            with pytest.raises(Unavailable, match="did not answer"):
                await directory.refresh()
            assert directory.last_error is not None
            assert "did not answer" in directory.last_error.message
            assert await directory.lookup(f"{1:032x}", f"{1:064x}")

    async def test_close_ends_a_stream_that_says_nothing(self, path: Path) -> None:
        kubelet = KubeletDouble(path, pod(1, "web"))
        async with kubelet.serving():
            async with following(path) as directory:
                await directory.refresh()
            async with asyncio.timeout(5):
                await until(lambda: not kubelet._steps)
