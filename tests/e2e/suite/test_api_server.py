"""The pods of a node from a real API server, with the right that the component gives."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.http.apiserver_login import KubeconfigFile, ServiceAccount
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource
from netutil.agent.pods.sources.base import ConfirmTiming

from tests.e2e.api_server import ACCOUNT, AGENT, RealApiServer
from tests.support.fakes.apiserver import names, shown
from tests.support.fakes.kubeconfigs import answer, kubeconfig, plugin, runs
from tests.support.manifests.documents import APISERVER_RBAC
from tests.support.waiting import until

PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/netutil/secrets"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def refusal(api_server: RealApiServer) -> str:
    """The error that the agent gets before the component exists."""

    async def ask() -> str:
        async with following(api_server) as (directory, _):
            with pytest.raises(Unavailable) as refused:
                await directory.refresh()
            return str(refused.value)

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def server(api_server: RealApiServer, refusal: str) -> RealApiServer:
    """The same with the right that the component gives."""
    del refusal  # it was asked for before
    api_server.apply(APISERVER_RBAC)
    api_server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "netutil"}})
    accounts = SECRETS.replace("secrets", "serviceaccounts")
    api_server.call("POST", accounts, {"metadata": {"name": "netutil-agent"}})
    return api_server


@pytest.fixture(autouse=True)
def no_pods(server: RealApiServer) -> Iterator[None]:
    yield
    for one in server.call("GET", PODS)["items"]:
        delete(server, one["metadata"]["name"])


def create(server: RealApiServer, name: str, node: str = "node-1") -> dict[str, Any]:
    container = {"name": "app", "image": "example.com/app"}
    pod = {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [container]}}
    return server.call("POST", PODS, pod)


def delete(server: RealApiServer, name: str) -> None:
    server.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})


def annotate(server: RealApiServer, name: str, value: str) -> None:
    body = {"metadata": {"annotations": {"example.com/value": value}}}
    server.call("PATCH", f"{PODS}/{name}", body, MERGE)


def run_container(server: RealApiServer, name: str, container_id: str) -> None:
    """As the kubelet says that a container runs."""
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    status = {
        "name": "app",
        "containerID": f"containerd://{container_id}",
        "state": running,
        "ready": True,
        "restartCount": 0,
        "image": "",
        "imageID": "",
    }
    body = {"status": {"phase": "Running", "containerStatuses": [status]}}
    server.call("PATCH", f"{PODS}/{name}/status", body, MERGE)


@asynccontextmanager
async def following(
    server: RealApiServer, login: ServiceAccount | KubeconfigFile | None = None, **changed: Any
) -> AsyncIterator[tuple[PodDirectory, ApiServerSource]]:
    login = login or ServiceAccount(server.url, str(server.ca_file), str(server.token_file))
    source = ApiServerSource(ApiServerSettings(login, "node-1", **changed))
    directory = PodDirectory(source, 10)
    try:
        yield directory, source
    finally:
        await directory.close()


def test_an_agent_without_the_component_says_what_it_may_not(refusal: str) -> None:
    assert f'403: pods is forbidden: User "{ACCOUNT}" cannot list' in refusal


async def test_a_pods_life_is_followed_and_another_nodes_is_not(server: RealApiServer) -> None:
    create(server, "before")
    create(server, "elsewhere", "node-2")
    async with following(server) as (directory, _):
        await directory.refresh()
        assert names(directory) == {"before"}
        uid = (await asyncio.to_thread(create, server, "new"))["metadata"]["uid"]
        await shown(directory, "before", "new")
        # The pod's only container is named before it is reported.
        early = await directory.lookup(uid, "c" * 64, need_container=True)
        assert early is not None
        assert (early.container_name, early.started_at) == ("app", None)
        waiting = asyncio.create_task(
            directory.lookup(uid, "c" * 64, good_enough=lambda match: match.started_at is not None)
        )
        await asyncio.to_thread(run_container, server, "new", "c" * 64)
        match = await waiting
        assert match is not None
        assert (match.container_name, str(match.started_at)) == ("app", "2026-01-01 00:00:00+00:00")
        await asyncio.to_thread(delete, server, "before")
        await shown(directory, "new")
        assert directory.stats.failures == 0


async def test_a_version_that_the_server_does_not_have_yet_is_given_up(
    server: RealApiServer,
) -> None:
    """As after a restore of etcd. The API server waits for it for three seconds first."""
    create(server, "web")
    async with following(server) as (directory, source):
        source._list_from = "999999999"
        await directory.changed(0)
        assert names(directory) == {"web"}
        assert int(source._list_from) < 999999999


async def test_watches_that_end_by_themselves_miss_nothing(server: RealApiServer) -> None:
    async with following(server, watch_seconds=1) as (directory, _):
        await directory.refresh()
        for number in range(20):
            await asyncio.to_thread(create, server, f"pod-{number}")
            await asyncio.sleep(0.2)
        await shown(directory, *(f"pod-{number}" for number in range(20)))
        await until(lambda: directory.stats.restarts >= 2)
        assert names(directory) == {f"pod-{number}" for number in range(20)}
        assert directory.stats.failures == 0


async def test_an_unchanged_list_is_confirmed_without_a_bookmark(
    server: RealApiServer,
) -> None:
    create(server, "web")
    confirm = ConfirmTiming(quiet_seconds=1, jitter_seconds=0, resumed_seconds=0.5)
    async with following(server, silence_seconds=2, confirm=confirm) as (directory, _):
        before = await directory.refresh()
        await until(
            lambda: (
                directory.stats.restarts >= 2
                and directory.last is not None
                and directory.last.observed_at > before.observed_at + timedelta(seconds=3)
            )
        )
        assert (directory.generation, directory.stats.failures) == (1, 0)
        assert (directory.stats.missed, directory.stats.streaming) == (0, 1)


async def test_a_watch_from_a_future_version_is_found_to_be_silent(
    server: RealApiServer,
) -> None:
    """As after a restore of etcd: the API server accepts it and says nothing."""
    create(server, "web")
    confirm = ConfirmTiming(resumed_seconds=0.5, grace_seconds=2)
    async with following(server, silence_seconds=3, confirm=confirm) as (directory, source):
        await directory.refresh()
        source._version = "999999999"  # for the next watch
        await until(lambda: directory.stats.missed == 1)
        await asyncio.to_thread(create, server, "new")
        await shown(directory, "web", "new")
        assert int(source._version) < 999999999


async def test_an_annotation_is_seen_at_once(
    server: RealApiServer, record_property: Any, tmp_path: Path
) -> None:
    create(server, "web")
    delays = []
    async with following(server) as (directory, _):
        await directory.refresh()
        for number in range(200):
            seen = directory.generation
            waiting = asyncio.create_task(directory.changed(seen))
            await asyncio.to_thread(annotate, server, "web", str(number))
            began = time.perf_counter()  # after the answer: what is left is the way to the agent
            await waiting
            delays.append(max(0.0, time.perf_counter() - began))
            await until(lambda: value(directory) == str(number))  # noqa: B023 - awaited here
    shown_as = {
        "p50": statistics.median(delays),
        "p99": statistics.quantiles(delays, n=100)[98],
    }
    record_property("delays", json.dumps(shown_as))
    print("annotation to changed(), seconds:", shown_as)
    assert shown_as["p99"] < 1


class TestLogin:
    @pytest.mark.parametrize("how", ["certificate", "plugin"])
    async def test_a_kubeconfig_logs_in(
        self, server: RealApiServer, tmp_path: Path, how: str
    ) -> None:
        pem = str(server.certificate)
        user: dict[str, Any] = {"client-certificate": pem, "client-key": pem}
        if how == "plugin":
            user = plugin(tmp_path, answer(token=AGENT))
        cluster = {"server": server.url, "certificate-authority": str(server.ca_file)}
        path = kubeconfig(tmp_path, server.url, user, cluster)
        create(server, "web")
        async with following(server, KubeconfigFile(path)) as (directory, _):
            await directory.refresh()
            await asyncio.to_thread(create, server, "new")
            await shown(directory, "web", "new")
            assert directory.stats.failures == 0
        assert runs(tmp_path) == (how == "plugin")

    async def test_a_revoked_token_is_replaced_without_a_failure(
        self, server: RealApiServer, tmp_path: Path
    ) -> None:
        """As the kubelet rotates one: tokens of the server's own, each bound to a Secret."""
        first = await asyncio.to_thread(bound_token, server, "a")
        second = await asyncio.to_thread(bound_token, server, "b")
        file = tmp_path / "token"
        file.write_text(first)
        login = ServiceAccount(server.url, str(server.ca_file), str(file))
        async with following(server, login, watch_seconds=1) as (directory, _):
            await directory.refresh()
            rotate(file, second)
            await asyncio.to_thread(server.call, "DELETE", f"{SECRETS}/a")
            await asyncio.to_thread(wait_for_rejection, server, first)
            restarts = directory.stats.restarts
            await until(lambda: directory.stats.restarts >= restarts + 2)
            await asyncio.to_thread(create, server, "new")
            await shown(directory, "new")
            assert directory.stats.failures == 0


def rotate(file: Path, token: str) -> None:
    """Replace a token in one step, as the kubelet does: a reader sees no half of a file."""
    fresh = file.with_suffix(".new")
    fresh.write_text(token)
    fresh.replace(file)


def bound_token(server: RealApiServer, name: str) -> str:
    """Return a token of the agent's account that ends with a Secret of that name."""
    secret = server.call("POST", SECRETS, {"metadata": {"name": name}})
    to = {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": secret["metadata"]["uid"]}
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [], "boundObjectRef": to},
    }
    path = f"{SECRETS.replace('secrets', 'serviceaccounts')}/netutil-agent/token"
    return str(server.call("POST", path, body)["status"]["token"])


def wait_for_rejection(server: RealApiServer, token: str) -> None:
    """Return when the API server rejects a token, which it keeps for ten seconds."""
    deadline = time.monotonic() + 60
    while server.status("/api/v1/pods", token) != HTTPStatus.UNAUTHORIZED:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def value(directory: PodDirectory) -> str:
    pods = directory.last.pods if directory.last is not None else ()
    return (pods[0].metadata.annotations or {}).get("example.com/value", "") if pods else ""
