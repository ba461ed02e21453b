"""The agent beside a real API server that has claims: what pods are answered.

Pods are the lab's, with the pod list in a file: a kubelet of 1.20 drops `spec.resourceClaims`. The
server refuses the field selector of slices (`claims.py`), so that devices have no attributes, and
each answer says why.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from netutil.agent.errors import Unavailable

from tests.e2e.api_server import AGENT, RealApiServer
from tests.e2e.claims import NAMESPACE, Claims, Database, wait_served
from tests.e2e.claims_feed import (
    NO_SELECTOR,
    answered,
    create,
    device_of,
    following,
    one_device,
)
from tests.support.fakes.kubeconfigs import kubeconfig
from tests.support.nodes.dra_node import NIC, DraNode, dra_node
from tests.support.nodes.json_calls import call
from tests.support.nodes.watching import Watcher, watching
from tests.support.waiting import until

MANY = 260
"""More than a page of a list."""


@pytest.fixture
def claims(claims_server: RealApiServer) -> Iterator[Claims]:
    """One claim of the pod: allocated, with a network that is not ready."""
    made = Claims(claims_server)
    create(made, NIC)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def node(
    claims_server: RealApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DraNode]:
    cluster = {
        "server": claims_server.url,
        "certificate-authority": str(claims_server.ca_file),
    }
    directory = tmp_path_factory.mktemp("node")
    path = kubeconfig(directory, claims_server.url, {"token": AGENT}, cluster)
    flags = ("--resource-claims=apiserver", f"--kubeconfig={path}", "--node-name=node-1")
    with dra_node(*flags) as made:
        yield made


def eventually(node: DraNode, enough: Callable[[Any], bool]) -> Any:
    """The first answer of the container that is enough."""
    deadline = time.monotonic() + 60
    while True:
        found = call(node.containers["app"], "GetResource", "ResourceRequest")
        assert "code" not in found, node.agent.stderr_text()
        if enough(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


def devices(resources: Any) -> Any:
    """The devices of the container's only claim."""
    (nic,) = resources["claims"]
    return nic.get("devices", [])


def condition(resources: Any) -> str:
    """The status of the device's only condition, "" while it is not known."""
    found = devices(resources)
    return str(found[0]["conditions"][0]["status"]) if found else ""


def test_a_pod_is_answered_and_watches_its_claim(node: DraNode, claims: Claims) -> None:
    found = eventually(node, is_not_ready)
    (nic,) = found["claims"]
    assert (nic["source"], nic["claim_name"]) == ("CLAIM_SOURCE_API_SERVER", NIC)
    (device,) = nic["devices"]
    assert device["network_data"]["ips"] == ["10.1.0.5/24"]
    assert device["conditions"][0]["reason"] == "LinkDown" and "attributes" not in device
    found = eventually(node, lambda found: NO_SELECTOR in str(found.get("claims_error")))
    assert found["claims_error"]["reason"] == "RESOURCE_CLAIMS_UNAVAILABLE"
    assert "claims" not in call(node.containers["plain"], "GetResource", "ResourceRequest")
    with watching(node.containers["app"]) as watcher:
        watcher.until(lambda line: is_not_ready(line["snapshot"]["resources"]))
        ready = [{"type": "NetworkReady", "status": "True", "reason": "LinkUp"}]
        claims.report(NIC, conditions=ready)
        changed = watcher.until(lambda line: condition(line["snapshot"]["resources"]) == "True")
        assert "resources" in changed["changed"]
        claims.delete(NIC)
        watcher.until(lambda line: not devices(line["snapshot"]["resources"]))


async def test_a_restarted_and_compacted_server_is_listed_again(
    node: DraNode, claims: Claims, claims_server: RealApiServer, events: Counter[str]
) -> None:
    """What other API servers of the cluster changed meanwhile no watch reports: 410.

    Beside the agent a feed in this process shows the 410, and claims that are no pod's.
    """
    database = Database(claims_server.etcd)
    copies = {f"copy-{number}": f"uid-of-copy-{number}" for number in range(MANY)}
    async with following(claims_server) as held:
        await device_of(held, NIC)
        with watching(node.containers["app"]) as watcher:
            await until_watched(watcher, is_not_ready)
            with claims_server.stopped():
                old = await answered(held, NIC, lambda found: found.claims_error is not None)
                assert one_device(old).network_data is not None
                with pytest.raises(Unavailable, match="API server"):
                    held.answer(NAMESPACE, "unknown")
                found = await asyncio.to_thread(eventually, node, is_cut_off)
                assert found["claims_error"]["reason"] == "RESOURCE_CLAIMS_UNAVAILABLE"
                assert is_not_ready(found)
                database.copy(NIC, copies)
                database.remove(NIC)
                database.compact()
            await asyncio.to_thread(eventually, node, lambda found: not devices(found))
            await asyncio.to_thread(wait_served, claims_server)
            await asyncio.to_thread(create, claims, NIC)
            await until_watched(watcher, is_not_ready)
        await answered(held, NIC, lambda found: found.requests is not None)
        await until(lambda: held.is_current)
        assert (len(held), events["EXPIRED"] >= 1, held.error) == (MANY + 1, True, None)
        assert one_device(held.answer(NAMESPACE, f"copy-{MANY - 1}")).conditions is not None


async def until_watched(watcher: Watcher, enough: Callable[[Any], bool]) -> None:
    """Return at the first snapshot in which the container's resources are enough."""
    await asyncio.to_thread(watcher.until, lambda line: enough(line["snapshot"]["resources"]))


def is_not_ready(resources: Any) -> bool:
    return condition(resources) == "False"


def is_cut_off(resources: Any) -> bool:
    """Whether claims are not current for another reason than the selector of slices."""
    return NO_SELECTOR not in str(resources.get("claims_error", NO_SELECTOR))
