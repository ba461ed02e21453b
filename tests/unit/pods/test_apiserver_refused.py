"""Refusals of the API server, and answers of the API server that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http.apiserver_login import ServiceAccount
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource

from tests.support.fakes.apiserver import NODE, ApiServer, following, pod, refusing
from tests.support.waiting import until


class TestRefused:
    async def test_a_rotated_token_is_shown_from_the_next_request_on(
        self, api: ApiServer, api_settings: dict[str, Any], token_file: str
    ) -> None:
        api.put(pod(1, "web"))
        async with following(api_settings) as directory:
            await directory.refresh()
            await until(lambda: len(api.watched) == 1)
            api.tokens = {"second-token"}
            write(token_file, "second-token\n")
            api.end_watches()
            await until(lambda: len(api.watched) == 2)
            assert directory.stats.failures == 0

    async def test_the_next_token_fixes_401(
        self, api: ApiServer, api_settings: dict[str, Any], token_file: str
    ) -> None:
        write(token_file, "expired-token\n")
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable) as refused:
                await directory.refresh()
            assert "HTTP status 401" in refused.value.message
            assert "--apiserver-token" in refused.value.advice
            assert "expired-token" not in f"{refused.value} {refused.value.read}"
            write(token_file, "first-token\n")
            await directory.changed(0)

    async def test_403_says_which_right_is_missing(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        said = 'pods is forbidden: User "system:serviceaccount:netutil:netutil-agent" cannot list'
        api.lists.append(refusing(403, "Forbidden", said))
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable) as refused:
                await directory.refresh()
        assert said in refused.value.message
        assert "manifests/apiserver" in refused.value.advice

    async def test_a_pause_that_the_server_asks_for_is_kept(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        busy = refusing(429, "TooManyRequests", "slow down", {"Retry-After": "17"})
        api.lists.append(busy)
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable) as refused:
                await directory.refresh()
        assert 16 < refused.value.retry_after_seconds <= 17

    async def test_a_redirect_is_not_followed(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.lists.append(refusing(307, "", "", {"Location": "https://evil.example/"}))
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable, match="307"):
                await directory.refresh()

    async def test_a_missing_token_is_an_error(
        self, api_settings: dict[str, Any], token_file: str
    ) -> None:
        login = replace(api_settings["login"], token_file=f"{token_file}-not")
        async with following(api_settings, login=login) as directory:
            with pytest.raises(Unavailable, match=r"The file of --apiserver-token.*No such file"):
                await directory.refresh()

    async def test_another_ca_is_an_error(
        self, api_settings: dict[str, Any], tmp_path: Path, api: ApiServer
    ) -> None:
        other = tmp_path / "other.crt"
        trustme.CA().cert_pem.write_to_path(str(other))
        login = ServiceAccount(api.url, str(other), api_settings["login"].token_file)
        async with following(api_settings, login=login) as directory:
            with pytest.raises(Unavailable, match="CA that is not in --apiserver-ca"):
                await directory.refresh()
        assert api.asked == []

    async def test_a_list_of_too_many_pods_is_refused(
        self, api: ApiServer, api_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("netutil.agent.pods.store.ObjectStore._ensure_bounded", _at_most_two)
        for number in range(1, 4):
            api.put(pod(number))
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable, match="more than 2 pods"):
                await directory.refresh()

    async def test_a_malformed_list_is_an_error(
        self, api: ApiServer, api_settings: dict[str, Any]
    ) -> None:
        api.lists.append(lambda handler, query: handler.send(b"<html>"))
        async with following(api_settings) as directory:
            with pytest.raises(Unavailable, match="it is no PodList"):
                await directory.refresh()

    async def test_an_address_that_is_not_https_is_none(self) -> None:
        login = ServiceAccount("http://127.0.0.1:8080", "", "")
        with pytest.raises(ValueError, match="https"):
            ApiServerSource(ApiServerSettings(login, NODE))


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def _at_most_two(store: object, count: int) -> None:
    if count > 2:
        raise PodListMalformed("it has more than 2 pods for one node")
