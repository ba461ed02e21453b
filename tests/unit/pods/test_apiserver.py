"""List and watch, against a server that speaks them over TLS: what is followed, and after what."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.sources.base import ConfirmTiming

from tests.support.fakes.apiserver import NODE, ApiServer, following, holding, names, pod, shown
from tests.support.waiting import until


class TestFollowing:
    async def test_the_list_comes_first_and_every_change_after_it(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        async with following(api_settings) as directory:
            await directory.refresh()
            assert names(directory) == {"web"}
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            api.delete(pod(1, "web"))
            await shown(directory, "new")
            api.put(pod(2, "new", {"example.com/a": "b"}))
            await directory.changed(directory.generation)
            assert directory.last is not None
            assert directory.last.pods[0].metadata.annotations == {"example.com/a": "b"}
            assert (len(api.listed), len(api.watched)) == (1, 1)

    async def test_only_this_nodes_pods_are_asked_for(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
        assert {query["fieldSelector"] for query in api.asked} == {f"spec.nodeName={NODE}"}

    async def test_the_first_list_comes_from_a_cache_and_starts_the_watch(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
        assert api.listed[0]["resourceVersion"] == "0"
        assert api.watched[0]["resourceVersion"] == "101"
        assert api.watched[0]["allowWatchBookmarks"] == "true"
        assert 300 <= int(api.watched[0]["timeoutSeconds"]) <= 600

    async def test_a_list_that_comes_in_pages_is_read_whole(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.paginates = True
        api.page_objects = 250
        for number in range(1, 501):
            api.put(pod(number))
        async with following(api_settings) as directory:
            assert len((await directory.refresh()).pods) == 500
        assert [query.get("continue") for query in api.listed] == [None, "250"]

    async def test_a_change_that_changes_nothing_that_is_used_is_none(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        made = pod(1)
        api.put(made)
        async with following(api_settings) as directory:
            before = await directory.refresh()
            made["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            api.put(made)
            await until(lambda: _observed_after(directory, before.observed_at))
            assert directory.generation == 1

    async def test_a_bookmark_confirms_the_list_and_moves_the_watch_on(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1))
        async with following(api_settings) as directory:
            before = await directory.refresh()
            api.bookmark()
            await until(lambda: _observed_after(directory, before.observed_at))
            assert directory.generation == 1
            api.end_watches()
            await until(lambda: len(api.watched) == 2)
        assert api.watched[1]["resourceVersion"] == "102"

    async def test_a_watch_that_stays_quiet_confirms_the_list(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1))
        soon = ConfirmTiming(quiet_seconds=0.2, jitter_seconds=0.0)
        async with following(api_settings, confirm=soon) as directory:
            before = await directory.refresh()
            await until(lambda: _observed_after(directory, before.observed_at))
            assert directory.generation == 1

    async def test_a_pod_that_cannot_be_read_takes_nothing_from_the_others(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        async with following(api_settings) as directory:
            await directory.refresh()
            odd, bad = pod(1, "odd"), pod(3, "bad")
            odd["metadata"]["labels"] = "none"
            odd["metadata"]["namespace"] = "shop"
            bad["metadata"]["namespace"] = None
            api.put(odd)
            api.put(bad)
            api.put(pod(2, "good"))
            await shown(directory, "odd", "good")
            assert directory.stats.restarts == 0


def _observed_after(directory: PodDirectory, moment: datetime) -> bool:
    return directory.last is not None and directory.last.observed_at > moment


class TestClose:
    async def test_it_ends_a_watch_that_says_nothing(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 2

    async def test_it_ends_a_list_that_never_comes(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.lists.append(holding)
        async with following(api_settings) as directory:
            waiting = asyncio.create_task(directory.refresh())
            await until(lambda: len(api.listed) == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 2
        await asyncio.gather(waiting, return_exceptions=True)
