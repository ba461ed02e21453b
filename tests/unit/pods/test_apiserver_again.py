"""Watches that end, break, or go silent: where they are begun again, and when with a list."""

from __future__ import annotations

import json
import ssl
from typing import Any

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.http.apiserver_login import ServiceAccount
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource

from tests.support.fakes.apiserver import (
    NODE,
    ApiServer,
    api_server,
    following,
    names,
    pod,
    refusing,
    shown,
    status,
    streaming,
)
from tests.support.waiting import until


class TestBegunAgain:
    async def test_a_watch_whose_time_is_over_continues_without_a_list(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
            api.end_watches()
            await until(lambda: len(api.watched) == 2)
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert len(api.listed) == 1
            assert directory.stats.failures == 0

    async def test_nothing_that_happens_between_two_watches_is_missed(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        api.watches.append(streaming())
        async with following(api_settings) as directory:
            await directory.refresh()
            api.put(pod(2, "new"))
            api.delete(pod(1, "web"))
            await shown(directory, "new")
            assert len(api.listed) == 1

    @pytest.mark.parametrize("how", ["status", "event"])
    async def test_a_410_causes_a_list_that_is_not_older(
        self, api: ApiServer, api_settings: dict[str, Any], how: str
    ) -> None:
        api.put(pod(1, "web"))
        expired = 410, "Expired", "too old resource version: 101 (1101)"
        line = json.dumps({"type": "ERROR", "object": status(*expired)}).encode() + b"\n"
        api.watches.append(refusing(*expired) if how == "status" else streaming(line))
        async with following(api_settings) as directory:
            await directory.refresh()
            api.put(pod(2, "new"))
            await until(lambda: len(api.watched) == 2)
            await shown(directory, "web", "new")
            assert directory.last_error is None
        assert len(api.listed) == 2
        assert api.listed[1]["resourceVersion"] == "101"
        assert api.listed[1]["resourceVersionMatch"] == "NotOlderThan"

    async def test_a_list_follows_410_without_a_pause(
        self, api: ApiServer, api_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a restart of the API server: failures, then a watch that it does not know."""
        monkeypatch.setattr(ApiServerSource, "first_pause_seconds", 0.01)
        api.put(pod(1, "web"))
        api.watches += [refusing(503, "ServiceUnavailable", "it starts")] * 3
        api.watches.append(refusing(410, "Expired", "too old resource version"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 5)
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert (len(api.listed), directory.stats.failures) == (2, 3)
            assert directory.stats.restarts == 3

    async def test_a_version_newer_than_the_servers_is_given_up(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        """As after a restore of the database."""
        api.put(pod(1, "web"))
        api.watches.append(refusing(410, "Expired", "too old resource version"))
        too_large = refusing(504, "Timeout", "Timeout: Too large resource version: 101")
        async with following(api_settings) as directory:
            await directory.refresh()
            api.lists.append(too_large)
            await until(lambda: len(api.watched) == 2)
        assert [query.get("resourceVersion") for query in api.listed] == ["0", "101", None]

    async def test_another_error_in_the_stream_causes_a_list(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
            api.error(status(500, "InternalError", "etcd has\n no leader"))
            await until(lambda: directory.last_error is not None)
            assert directory.last_error is not None
            assert "500 etcd has no leader." in directory.last_error.message
            assert names(directory) == {"web"}
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert len(api.listed) == 2

    @pytest.mark.parametrize(
        "line",
        [
            b'{"type": "ADDED", "object": {"metadata": \n',
            b"<html>\n",
            b'{"type": "INVENTED", "object": {"metadata": {"resourceVersion": "7"}}}\n',
            b'{"type": "DELETED", "object": {"metadata": {"name": "web"}}}\n',
            b"[" * 100_000 + b"\n",
            b"\xff\xfe\n",
        ],
        ids=["half", "html", "type", "which pod", "deep", "binary"],
    )
    async def test_an_invalid_event_ends_the_stream_and_causes_a_list(
        self, api: ApiServer, api_settings: dict[str, Any], line: bytes
    ) -> None:
        api.put(pod(1, "web"))
        api.watches.append(streaming(line, then="silence"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: directory.last_error is not None)
            assert directory.last_error is not None
            assert "answer cannot be used: an event" in directory.last_error.message
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert len(api.listed) == 2

    async def test_a_giant_event_is_not_read_to_its_end(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        api.watches.append(streaming(*[b"x" * 2**20] * 6, then="silence"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: directory.last_error is not None)
            assert directory.last_error is not None
            assert "larger than 4194304 bytes" in directory.last_error.message

    @pytest.mark.parametrize("sent", [b"", b'{"type": "ADDED", '])
    async def test_a_stream_that_breaks_off_goes_on_where_it_was(
        self, api: ApiServer, api_settings: dict[str, Any], sent: bytes
    ) -> None:
        api.put(pod(1, "web"))
        chunks = (sent,) if sent else ()
        api.watches.append(streaming(*chunks, then="break"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 2)
            assert directory.stats.failures == 1
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")
            assert len(api.listed) == 1

    async def test_an_event_cut_off_by_the_streams_end_is_ignored(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        half = json.dumps({"type": "ADDED", "object": pod(9, "half")}).encode()[:-20]
        api.watches.append(streaming(half))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: directory.last_error is not None)
            assert names(directory) == set()

    async def test_silence_is_no_failure_and_the_watch_continues(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.put(pod(1, "web"))
        api.watches.append(streaming(then="silence"))
        async with following(api_settings, silence_seconds=1.2) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 2)
            assert directory.stats.failures == 0
            assert len(api.listed) == 1
            api.put(pod(2, "new"))
            await shown(directory, "web", "new")

    async def test_the_last_list_outlives_a_missing_server(
        self, good_context: ssl.SSLContext, ca_file: str, token_file: str
    ) -> None:
        with api_server(good_context) as api:
            api.put(pod(1, "web"))
            login = ServiceAccount(api.url, ca_file, token_file)
            source = ApiServerSource(ApiServerSettings(login, NODE))
            directory = PodDirectory(source, 10)
            before = (await directory.refresh()).observed_at
            await until(lambda: len(api.watched) == 1)
        await until(lambda: directory.last_error is not None)
        match = await directory.lookup(f"{1:032x}", f"{1:064x}")
        assert match is not None
        assert match.observed_at == before
        with pytest.raises(Unavailable):
            await directory.lookup(f"{2:032x}", f"{2:064x}")
        await directory.close()
