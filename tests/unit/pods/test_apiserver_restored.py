"""An API server whose database was restored from a backup, and watches that lose what lists have.

kubernetes/kubernetes#107457: resource versions go back, and a watch from a version that was not
given out again yet is accepted and silent.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.sources.base import ConfirmTiming

from tests.support.fakes.apiserver import (
    ApiServer,
    following,
    holding,
    names,
    pod,
    refusing,
    shown,
    streaming,
)
from tests.support.waiting import until

LATER = ConfirmTiming(quiet_seconds=600, resumed_seconds=600, grace_seconds=0.3)
RESUMED = replace(LATER, resumed_seconds=0.2)
SOON = replace(LATER, quiet_seconds=0.1, jitter_seconds=0.1, resumed_seconds=0.2)


async def test_a_restored_database_is_found_and_its_pods_are_listed(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.put(pod(1, "web"))
    async with following(api_settings, confirm=RESUMED) as directory:
        await directory.refresh()
        await until(lambda: len(api.watched) == 1)
        api.restore(pod(1, "web"), pod(2, "older"))
        await until(lambda: directory.stats.missed == 1)
        await shown(directory, "web", "older")
        assert directory.last_error is None
        await until(lambda: len(api.watched) == 3)
        assert [query["resourceVersion"] for query in api.listed] == ["0", "0"]
        assert [query["resourceVersion"] for query in api.watched] == ["101", "101", "50"]
        assert directory.stats.failures == 1
        api.put(pod(3, "new"))
        await shown(directory, "web", "older", "new")


async def test_a_restored_database_with_the_same_pods_is_found_too(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    """Nothing differs yet; what comes next would never be brought."""
    web = pod(1, "web")
    api.put(web)
    async with following(api_settings, confirm=RESUMED) as directory:
        await directory.refresh()
        api.bookmark()
        api.bookmark()
        await until(lambda: directory.stats.restarts == 0 and len(api.watched) == 1)
        await asyncio.sleep(0.2)  # for the bookmarks to have come
        api.restore(web, version=101)
        await until(lambda: directory.stats.missed == 1)
        assert len(api.of_one_name) >= 1
        api.put(pod(2, "new"))
        await shown(directory, "web", "new")


async def test_a_database_past_the_old_version_is_found_by_its_pods(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    """The watch goes on and brings what is newer; what is older than its version is lost."""
    api.put(pod(1, "web"))
    async with following(api_settings, confirm=RESUMED) as directory:
        await directory.refresh()
        await until(lambda: len(api.watched) == 1)
        api.restore(pod(1, "web"), pod(2, "older"), version=90)
        for number in range(3, 23):
            api.put(pod(number))
        await until(lambda: directory.stats.missed == 1)
        await shown(directory, "web", "older", *(f"pod-{number}" for number in range(3, 23)))
        assert api.listed[1]["resourceVersionMatch"] == "NotOlderThan"


async def test_a_resumed_watch_is_unhealthy_until_it_is_confirmed(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.put(pod(1, "web"))
    api.watches.append(streaming(then="break"))
    async with following(api_settings, confirm=LATER) as directory:
        await directory.refresh()
        await until(lambda: directory.stats.restarts == 1 and len(api.watched) == 2)
        await asyncio.sleep(1.5)
        assert directory.stats.streaming == 0
        match = await directory.lookup(f"{1:032x}", f"{1:064x}")
        assert match is not None


async def test_an_unknown_caller_after_a_restore_causes_a_list(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.put(pod(1, "web"))
    async with following(api_settings, confirm=LATER) as directory:
        await directory.refresh()
        await until(lambda: len(api.watched) == 1)
        api.restore(pod(2, "older"))
        await until(lambda: len(api.watched) == 2)
        began = time.monotonic()
        match = await directory.lookup(f"{2:032x}", f"{2:064x}")
        assert match is not None
        assert match.pod.metadata.name == "older"
        assert time.monotonic() - began < 5


async def test_a_pod_that_the_watch_lost_is_found_while_bookmarks_come(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.put(pod(1, "web"))
    async with following(api_settings, confirm=SOON) as directory:
        await directory.refresh()
        await until(lambda: len(api.watched) == 1)
        api.lose(pod(2, "lost"))
        await shown(directory, "web", "lost")
        assert directory.stats.missed == 1


async def test_a_metadata_list_is_taken_from_any_cache_for_this_node(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    async with following(api_settings, confirm=SOON) as directory:
        await directory.refresh()
        await until(lambda: len(api.compared) >= 2)
    assert api.compared[0] == {"fieldSelector": "spec.nodeName=node-1", "resourceVersion": "0"}
    assert not api.of_one_name


async def test_a_cache_behind_the_watch_is_no_restored_database(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    """Etcd itself is asked for the version it is at: a list of one name reads one key."""
    api.put(pod(1, "web"))
    api.lags = 7
    async with following(api_settings, confirm=SOON) as directory:
        await directory.refresh()
        await until(lambda: directory.stats.comparisons >= 3)
        assert api.of_one_name[0]["limit"] == "1"
        assert "metadata.name=" in api.of_one_name[0]["fieldSelector"]
        assert (directory.stats.missed, directory.stats.streaming) == (0, 1)


async def test_changes_that_keep_coming_are_no_difference(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.put(pod(1, "web"))
    async with following(api_settings, confirm=replace(SOON, grace_seconds=1)) as directory:
        await directory.refresh()
        for number in range(40):
            api.put(pod(2, "busy", {"example.com/number": str(number)}))
            waiting = asyncio.create_task(directory.lookup("f" * 32, None, timeout_seconds=0.05))
            await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: directory.stats.comparisons >= 3)
        assert directory.stats.missed == 0


@pytest.mark.parametrize(
    "answer",
    [refusing(429, "TooManyRequests", "slow down", {"Retry-After": "1"}), holding],
    ids=["refused", "held"],
)
async def test_a_failed_list_confirms_nothing_and_keeps_the_watch(
    api: ApiServer, api_settings: dict[str, Any], answer: Any
) -> None:
    api.put(pod(1, "web"))
    api.compares += [answer] * 20
    timing = replace(SOON, max_unconfirmed_seconds=0.5)
    async with following(api_settings, confirm=timing, compare_seconds=0.3) as directory:
        await directory.refresh()
        await until(lambda: directory.unconfirmed is not None)
        assert directory.stats.streaming == 0
        with pytest.raises(Unavailable):
            await directory.refresh()
        api.put(pod(2, "new"))  # the watch itself is well: what it brings is shown
        await shown(directory, "web", "new")
        assert len(api.watched) == 1
        assert directory.stats.streaming == 1


async def test_the_error_of_a_metadata_list_names_its_cause(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.compares += [lambda handler, query: handler.send(b'{"items": 7}')] * 20
    timing = replace(SOON, max_unconfirmed_seconds=0.3)
    async with following(api_settings, confirm=timing) as directory:
        await directory.refresh()
        await until(lambda: directory.unconfirmed is not None)
        assert directory.unconfirmed is not None
        assert "answer cannot be used: its metadata cannot be read" in directory.unconfirmed.message


async def test_a_pod_that_cannot_be_read_is_no_difference(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    bad = pod(1, "bad")
    bad["metadata"]["namespace"] = None
    api.put(bad)
    api.put(pod(2, "good"))
    async with following(api_settings, confirm=SOON) as directory:
        await directory.refresh()
        await until(lambda: directory.stats.comparisons >= 3)
        assert (names(directory), directory.stats.missed) == ({"good"}, 0)


async def test_close_ends_a_comparison_that_is_held(
    api: ApiServer, api_settings: dict[str, Any]
) -> None:
    api.compares.append(holding)
    async with following(api_settings, confirm=SOON) as directory:
        await directory.refresh()
        await until(lambda: len(api.compared) == 1)
        began = time.monotonic()
    assert time.monotonic() - began < 2
