"""The answer about interfaces is made once, while nothing but counters changes."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.collect import environment_collector, interface_collector
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import held_environment
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import MAX_ANSWERS, NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import Allocated, Interfaces, InterfacesAnswer
from netutil.agent.errors import NotFound
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.messages import encode_interfaces
from netutil.agent.messages.encode_interfaces import EncodedInterfaces
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import decode_pod_list
from netutil.v1alpha import netutil_pb2 as api

from tests.support.fakes.kubelet import list_json, pod_json
from tests.support.namespaces import Namespace, network_namespace
from tests.support.nodes.sriov_node import VF, build_sriov_node

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
    """A caller in a namespace, and how often an answer was built for it."""

    def __init__(self, process: Namespace, host_root: str) -> None:
        self.made = 0
        self.match = match()
        self.allocated = NOTHING
        self.pin = pin_pid(process.pid)
        reads = ReadPool()
        self.cache = NetworkCache(reads.run)
        anything: Any = SimpleNamespace(reads=reads)
        live = LiveNetworks(self.cache, ())
        self.gathering = Collector(anything, anything, anything, host_root, anything, live)
        self.answer = InterfacesAnswer(
            self._make, encode_interfaces.with_counters, EncodedInterfaces.size_bytes
        )

    def _make(self, found: Interfaces) -> EncodedInterfaces:
        self.made += 1
        return encode_interfaces.without_counters(found)

    @property
    def caller(self) -> Any:
        peer = SimpleNamespace(process=self.pin, pod_key="u")
        return SimpleNamespace(
            peer=peer, match=self.match, require_match=lambda: self.match, unavailable=None
        )

    async def __call__(self, interface: str = "") -> api.InterfacesResponse:
        found = await self.gathering.interfaces.answer_of(
            self.caller, "", interface, self.answer, self.allocated
        )
        return api.InterfacesResponse.FromString(found.body)

    def known(self) -> api.InterfacesResponse | None:
        found = self.gathering.interfaces.known_answer(self.caller, self.answer, self.allocated)
        return None if found is None else api.InterfacesResponse.FromString(found.body)


@pytest.fixture
async def asking(process: Namespace, tmp_path: Path) -> AsyncIterator[Asking]:
    made = Asking(process, build_sriov_node(tmp_path))
    await made()
    yield made
    made.cache.close()
    made.pin.close()


async def test_equal_questions_get_equal_copies_of_one_answer(asking: Asking) -> None:
    first, second = await asking(), await asking()
    assert asking.made == 1
    assert first == second and first is not second
    assert [one.name for one in first.interfaces] == ["eth0"]
    first.interfaces[0].name = "spoiled"
    assert (await asking()).interfaces[0].name == "eth0"


async def test_a_change_makes_another_answer(asking: Asking, process: Namespace) -> None:
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


async def test_an_answer_is_known_at_once_until_something_changes(
    asking: Asking, process: Namespace
) -> None:
    assert asking.known() == await asking()
    process.batch("link set eth0 mtu 1400\n")
    assert asking.known() is None
    assert (await asking()).interfaces[0].link.mtu == 1400
    assert asking.known() == await asking()
    asking.match = match(address="192.0.2.6")
    assert asking.known() is None
    await asking()
    asking.allocated = allocated(VF)
    assert asking.known() is None
    await asking()
    assert asking.known() == await asking()


async def test_an_answer_of_one_interface_is_kept_beside_that_of_all(asking: Asking) -> None:
    for _ in range(2):
        assert [one.name for one in (await asking("eth0")).interfaces] == ["eth0"]
        await asking()
    assert asking.made == 2
    for number in range(2 * MAX_ANSWERS):
        with pytest.raises(NotFound):
            await asking(f"none{number}")


def allocated(*addresses: str) -> Allocated:
    return Allocated(
        tuple(AllocatedDevice("PCIDEVICE_X", n, one, one) for n, one in enumerate(addresses)),
        af_xdp=(),
    )


async def test_an_answer_is_kept_while_its_devices_drivers_stay(
    asking: Asking, tmp_path: Path
) -> None:
    asking.allocated = allocated(VF)
    made = asking.made
    for _ in range(3):
        assert [one.pci.driver for one in (await asking()).interfaces] == ["", "iavf"]
    assert asking.made == made + 1
    driver = tmp_path / "sys/bus/pci/devices" / VF / "driver"
    target = driver.readlink().parent / "vfio-pci"
    driver.unlink()
    driver.symlink_to(target)
    assert [one.pci.driver for one in (await asking()).interfaces] == ["", "vfio-pci"]
    assert asking.made == made + 2


async def test_an_answer_with_an_unreadable_device_is_made_each_time(
    asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_: str) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(asking.gathering.pci, "look", look)
    asking.allocated = allocated(VF)
    made = asking.made
    for _ in range(2):
        assert (await asking()).HasField("pci_error")
    assert asking.made == made + 2


async def test_a_large_answer_is_made_each_time(asking: Asking, process: Namespace) -> None:
    process.batch(*(f"address add 10.9.0.{n}/32 dev eth0\n" for n in range(1, 100)))
    await asking()
    made = asking.made
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(interface_collector, "_MAX_KEPT_BYTES", 1000)
        process.batch("link set eth0 mtu 1400\n")
        for _ in range(2):
            assert len((await asking()).interfaces[0].link.addresses) == 100
    assert asking.made == made + 2


async def test_an_answer_is_not_kept_with_devices_of_long_variables(asking: Asking) -> None:
    devices = (AllocatedDevice("PCIDEVICE_X", 0, "x", "", {"a": [{}] * 10000}),)
    long = interface_collector._MAX_KEPT_CHARACTERS + 1
    for made, characters in ((2, long), (3, long), (4, long - 1), (4, long - 1)):
        asking.allocated = Allocated(devices, af_xdp=(), characters=characters)
        await asking("eth0")
        assert asking.made == made


def test_devices_of_two_environments_count_both_variables() -> None:
    own, start = (held_environment(f"PCIDEVICE_X={name}\0".encode()) for name in ("a", "bb"))
    found = environment_collector._named(own, start, None)
    assert found.characters == own.device_characters + start.device_characters > 0
