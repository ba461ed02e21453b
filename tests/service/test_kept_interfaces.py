"""The answer about interfaces is made once, while nothing but counters changes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.collect.network_cache import MAX_ANSWERS, NetworkCache
from netutil.agent.errors import Missing
from netutil.agent.identity.pinning import pin_pid
from netutil.agent.parsers.devices import AllocatedDevice
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import decode_pod_list
from netutil.agent.service import device_answers
from netutil.agent.service.gather import Gathering
from netutil.agent.service.gathered import Allocated, Interfaces, InterfacesAnswer
from netutil.agent.service.live import LiveNetworks
from netutil.agent.service.reads import ReadPool
from netutil.v1alpha import netutil_pb2 as api

from tests.facts.namespaces import Namespace, network_namespace
from tests.pods.kubelet_server import list_json, pod_json

pytestmark = pytest.mark.root

STATUS = "k8s.v1.cni.cncf.io/network-status"
LISTED_AT = datetime(2026, 11, 29, tzinfo=UTC)
NOTHING = Allocated(af_xdp=())


def match(address: str = "192.0.2.5", listed_at: datetime = LISTED_AT) -> Match:
    pod: dict[str, Any] = pod_json("web", "u", {})
    report = [{"name": "cbr0", "interface": "eth0", "ips": [address], "default": True}]
    pod["metadata"]["annotations"] = {STATUS: json.dumps(report)}
    (read,) = decode_pod_list(list_json(pod))
    return Match(read, "app", "container", listed_at)


@pytest.fixture
def process() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with network_namespace() as made:
        made.batch(
            "link set lo up\n",
            "link add eth0 type bridge\n",
            "address add 192.0.2.5/24 dev eth0\n",
        )
        yield made


class Asking:
    """A caller in a namespace, and how often an answer was made anew for it."""

    def __init__(self, process: Namespace) -> None:
        self.made = 0
        self.match = match()
        self.allocated = NOTHING
        self.pin = pin_pid(process.pid)
        reads = ReadPool()
        self.cache = NetworkCache(reads.run)
        anything: Any = SimpleNamespace()
        live = LiveNetworks(self.cache, ())
        self._gathering = Gathering(anything, reads, anything, "/", anything, live)
        self._answer = InterfacesAnswer(self._make, device_answers.with_counters)

    def _make(self, found: Interfaces) -> api.InterfacesResponse:
        self.made += 1
        return device_answers.interfaces(found)

    async def __call__(self, interface: str = "") -> api.InterfacesResponse:
        peer = SimpleNamespace(process=self.pin, pod_key="u")
        caller: Any = SimpleNamespace(peer=peer, match=self.match, known=self.match)
        return await self._gathering.interfaces(caller, "", interface, self._answer, self.allocated)


@pytest.fixture
async def asking(process: Namespace) -> AsyncIterator[Asking]:
    made = Asking(process)
    await made()
    yield made
    made.cache.close()
    made.pin.close()


async def test_an_answer_is_made_once_and_the_next_is_equal_and_another(asking: Asking) -> None:
    first, second = await asking(), await asking()
    assert asking.made == 1
    assert first == second and first is not second
    assert [one.name for one in first.interfaces] == ["eth0"]
    first.interfaces[0].name = "spoiled"
    assert (await asking()).interfaces[0].name == "eth0"


async def test_what_changed_makes_another_answer(asking: Asking, process: Namespace) -> None:
    process.batch("link set eth0 mtu 1400\n")
    assert (await asking()).interfaces[0].link.mtu == 1400
    assert asking.made == 2
    asking.match = match(address="192.0.2.6")
    assert [drift.field for drift in (await asking()).interfaces[0].drift] == ["ips"]
    assert asking.made == 3
    asking.match = match("192.0.2.6", LISTED_AT + timedelta(seconds=10))
    assert (await asking()).observed_at.ToDatetime(UTC) == asking.match.observed_at
    assert asking.made == 4
    asking.allocated = Allocated(af_xdp=(AllocatedDevice("AFXDP_DEVICES", 0, "eth0", ""),))
    assert [one.name for one in (await asking()).af_xdp.devices] == ["eth0"]
    assert asking.made == 5
    await asking()
    assert asking.made == 5


async def test_an_answer_of_one_interface_is_kept_beside_that_of_all(asking: Asking) -> None:
    for _ in range(2):
        assert [one.name for one in (await asking("eth0")).interfaces] == ["eth0"]
        await asking()
    assert asking.made == 2
    for number in range(2 * MAX_ANSWERS):
        with pytest.raises(Missing):
            await asking(f"none{number}")


async def test_answers_with_devices_are_made_each_time(asking: Asking) -> None:
    """Their files on the node are read for each."""
    asking.allocated = Allocated((AllocatedDevice("PCIDEVICE_X", 0, *2 * ("0000:3b:00.0",)),))
    made = asking.made
    for _ in range(2):
        assert len((await asking()).interfaces) == 2
    assert asking.made == made + 2
