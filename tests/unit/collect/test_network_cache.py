"""Held network namespaces: never older than a read, and released with their processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from netutil.agent.collect import network_cache as module
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import LiveNetwork, NetworkCache, Run
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import (
    QuotaExceeded,
    Reason,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from netutil.agent.facts import links as links_module
from netutil.agent.facts.links import Link, read_links
from netutil.agent.facts.links import network_namespace as namespace_of
from netutil.agent.facts.network_state import (
    MAX_INLINE_LINKS,
    Namespace,
    NamespaceChangedError,
    NetworkReading,
    open_held,
)
from netutil.agent.facts.rtnetlink import inside
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.rtnetlink import NO_COUNTERS

from tests.support.namespaces import Namespace as Process
from tests.support.namespaces import network_namespace
from tests.support.notifications import Notifications
from tests.support.processes import open_descriptors

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")


@pytest.fixture
def process() -> Iterator[Process]:
    with network_namespace() as made:
        yield made


@pytest.fixture
async def cache() -> AsyncIterator[NetworkCache]:
    cache = NetworkCache(ReadPool().run)
    yield cache
    cache.close()
    assert len(cache) == 0


@contextmanager
def pinned(process: Process) -> Iterator[PinnedProcess]:
    pin = pin_pid(process.pid)
    try:
        yield pin
    finally:
        pin.close()


@pytest.fixture
def pin(process: Process) -> Iterator[PinnedProcess]:
    with pinned(process) as made:
        yield made


def seen(pin: PinnedProcess) -> Namespace:
    return pin.through_running_thread(namespace_of)


async def looked(cache: NetworkCache, pin: PinnedProcess, pod_key: str = "pod") -> LiveNetwork:
    """Return the answer for a process now."""
    found = cache.current(pin, seen(pin))
    return found or await cache.network(pod_key, pin, seen(pin))


def without_counters(links: tuple[Link, ...]) -> tuple[Link, ...]:
    return NetworkReading(links, None).without_counters()


async def quietly(cache: NetworkCache, pin: PinnedProcess) -> LiveNetwork:
    """The network once it is answered without a reading: the kernel's own changes are over."""
    async with asyncio.timeout(20):
        while (found := cache.current(pin, seen(pin))) is None:
            await cache.network("pod", pin, seen(pin))
            await asyncio.sleep(0.01)
    return found


async def eventually(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        await asyncio.sleep(0.02)


# Held: the same object while nothing changed


async def test_an_unchanged_namespace_is_read_once(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    first = await quietly(cache, pin)
    reads = cache.reads
    for _ in range(50):
        again = cache.current(pin, seen(pin))
        assert again is not None and again.state is first.state
    assert cache.reads == reads
    assert [link.name for link in first.state.links] == ["lo"]
    assert all(link.counters is NO_COUNTERS for link in first.state.links)


async def test_a_change_that_nets_out_to_nothing_is_the_same_state(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    first = await quietly(cache, pin)
    process.batch("link add br0 type bridge\n", "link delete br0\n")
    assert cache.current(pin, seen(pin)) is None
    assert (await looked(cache, pin)).state is first.state


async def test_counters_are_as_of_now_while_the_state_is_kept(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    process.batch("link set lo up\n", "address replace 127.0.0.1/8 dev lo\n")
    first = await quietly(cache, pin)
    before = first.counters[1].rx_packets
    send_to_loopback(process, packets=6)
    after = cache.current(pin, seen(pin))
    assert after is not None and after.state is first.state
    assert after.counters[1].rx_packets >= before + 6
    assert after.counters == NetworkReading(read_links(process.directory), b"").counters()


def send_to_loopback(process: Process, packets: int) -> None:
    namespace = os.open("ns/net", os.O_RDONLY, dir_fd=process.directory)
    try:
        with inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            for _ in range(packets):
                sender.sendto(b"x", ("127.0.0.1", 9))
    finally:
        os.close(namespace)


async def test_processes_of_one_namespace_share_it(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    with entered(process) as second, pinned_pid(second) as other:
        first = await quietly(cache, pin)
        found = cache.current(other, seen(other))
        assert found is not None and found.state is first.state
        assert len(cache) == 1


# Never older than a read

CHANGES: dict[str, tuple[list[str], list[str]]] = {
    "mtu": (["link set eth0 mtu 1400"], ["link set eth0 mtu 1500"]),
    "mac": (
        ["link set eth0 address 02:00:00:00:00:07"],
        ["link set eth0 address 02:00:00:00:00:08"],
    ),
    "down": (["link set eth1 down"], ["link set eth1 up"]),
    "carrier": (["link set peer1 down"], ["link set peer1 up"]),
    "name": (["link set eth2 name net2"], ["link set net2 name eth2"]),
    "link": (["link add br1 type bridge"], ["link delete br1"]),
    "master": (["link set eth2 master br0"], ["link set eth2 nomaster"]),
    "address": (["address add 192.0.2.9/32 dev eth0"], ["address del 192.0.2.9/32 dev eth0"]),
    "address without a scope": (
        ["address add 192.0.2.10 peer 192.0.2.11 scope link dev eth0"],
        ["address del 192.0.2.10 peer 192.0.2.11 dev eth0"],
    ),
    "ipv6": (["address add 2001:db8::9/64 dev eth0"], ["address del 2001:db8::9/64 dev eth0"]),
    "ipv6, notified late": (
        ["address add 2001:db8:1::9/64 dev eth0 nodad noprefixroute"],
        ["address del 2001:db8:1::9/64 dev eth0"],
    ),
    "default route": (
        ["route add default via 192.0.2.1 dev eth0 metric 7"],
        ["route del default via 192.0.2.1 dev eth0 metric 7"],
    ),
    "default route of ipv6": (
        ["route add default via 2001:db8:2::1 dev eth0"],
        ["route del default via 2001:db8:2::1 dev eth0"],
    ),
    "rule": (["rule add from all table 77"], ["rule del from all table 77"]),
    "rule of ipv6": (
        ["-6 rule add from all table 78"],
        ["-6 rule del from all table 78"],
    ),
    "route of a table": (
        ["rule add from all table 79", "route add default dev eth0 table 79"],
        ["route del default dev eth0 table 79", "rule del from all table 79"],
    ),
    "next hop, silent": (
        [
            "nexthop add id 5 via 192.0.2.2 dev eth0",
            "route add default nhid 5 metric 9",
        ],
        ["nexthop del id 5"],
    ),
    "source address, silent": (
        [
            "address add 192.0.2.20/32 dev eth0",
            "route add default via 192.0.2.1 dev eth0 src 192.0.2.20 metric 11",
        ],
        ["address del 192.0.2.20/32 dev eth0"],
    ),
}
LINKS = [
    "link set lo up",
    "link add br0 type bridge",
    *(f"link add eth{n} type veth peer name peer{n}" for n in range(3)),
    *(f"link set {name}{n} up" for name in ("peer", "eth") for n in range(2)),
    "address add 192.0.2.5/24 dev eth0",
    "address add 2001:db8:2::5/64 dev eth0 nodad",
    "address add 198.51.100.5/24 dev eth1",
    "route add default via 198.51.100.1 dev eth1 metric 3",
    "route add default dev eth0 table 77",
    "route add default via 2001:db8:2::1 dev eth0 table 78",
]


class Ip:
    """`ip -batch -` in a namespace, kept running: a change takes no process of its own."""

    def __init__(self, process: Process) -> None:
        self._enter = ["nsenter", "-t", str(process.pid), "-n", "ip"]
        self._process = subprocess.Popen(
            [*self._enter, "-batch", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, *lines: str) -> None:
        """Make changes, and return when the last has been made. A batch takes no option -6."""
        if lines[0].startswith("-6"):
            for line in lines:
                subprocess.run([*self._enter, *line.split()], check=True)
            return
        assert self._process.stdin is not None and self._process.stdout is not None
        # The last one prints; ip flushes what it printed after each line.
        self._process.stdin.write("".join(f"{one}\n" for one in (*lines, "link show lo")))
        self._process.stdin.flush()
        printed = self._process.stdout.readline() + self._process.stdout.readline()
        assert "LOOPBACK" in printed, printed

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def ip(process: Process) -> Iterator[Ip]:
    made = Ip(process)
    made(*LINKS)
    yield made
    made.close()


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_seen_at_once(
    cache: NetworkCache, process: Process, pin: PinnedProcess, ip: Ip, name: str
) -> None:
    there, back = CHANGES[name]
    for lines in (there, back):
        before = await quietly(cache, pin)
        ip(*lines)
        answered = await answers_as_read(cache, process, pin)
        assert before.state.links not in answered


async def answers_as_read(
    cache: NetworkCache, process: Process, pin: PinnedProcess, seconds: float = 20.0
) -> list[tuple[Link, ...]]:
    """Return what is answered until it is compared with the same reading before and after it.

    That is the first answer, but where the kernel goes on: a work queue (net/core/link_watch.c)
    sets the states of links whose carrier came or went, one by one, after the system call.
    `link set peer1 up` is three notifications and an address of IPv6, and on a busy machine each
    of three readings may find another state.
    """
    answered: list[tuple[Link, ...]] = []
    until = time.monotonic() + seconds
    while True:
        earlier = without_counters(read_links(process.directory))
        answered.append((await looked(cache, pin)).state.links)
        if without_counters(read_links(process.directory)) == earlier:
            break
        assert time.monotonic() < until, "the links change all the time"
    assert answered[-1] == earlier
    return answered


async def test_a_thousand_changes_are_seen_at_once_by_all_callers(
    cache: NetworkCache, process: Process, pin: PinnedProcess, ip: Ip
) -> None:
    """Addresses and sizes, at random moments, while others ask without end."""
    chance, done, asked = random.Random(18), asyncio.Event(), 0  # noqa: S311

    async def ask_without_end() -> None:
        nonlocal asked
        while not done.is_set():
            await looked(cache, pin)
            asked += 1
            await asyncio.sleep(chance.random() * 0.002)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(ask_without_end())
        for number in range(1000):
            mtu = 1300 + number % 100
            host = f"10.9.{number // 250}.{number % 250}/32"
            await asyncio.to_thread(ip, f"link set eth0 mtu {mtu}", f"address add {host} dev eth1")
            found = await looked(cache, pin)
            links = {link.name: link for link in found.state.links}
            assert links["eth0"].mtu == mtu, number
            assert host in [one.address for one in links["eth1"].addresses], number
            if number % 10 == 9:
                await asyncio.to_thread(
                    ip,
                    *(
                        f"address del 10.9.{n // 250}.{n % 250}/32 dev eth1"
                        for n in range(number - 9, number + 1)
                    ),
                )
        done.set()
    assert asked > 100


async def test_the_next_change_after_a_flood_is_seen(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    await quietly(cache, pin)
    process.batch(
        "link set lo up\n",
        *(f"address add 10.{n // 250}.{n % 250}.1/32 dev lo\n" for n in range(3000)),
        *(f"address del 10.{n // 250}.{n % 250}.1/32 dev lo\n" for n in range(3000)),
    )
    assert cache.current(pin, seen(pin)) is None
    await quietly(cache, pin)
    process.batch("link set lo mtu 60000\n")
    assert (await looked(cache, pin)).state.links[0].mtu == 60000


async def test_changes_without_a_notification_are_read_in_time(
    process: Process, pin: PinnedProcess
) -> None:
    now = 1000.0
    cache = NetworkCache(ReadPool().run, clock=lambda: now)
    await quietly(cache, pin)
    now += module.MAX_AGE_SECONDS - 0.1
    assert cache.current(pin, seen(pin)) is not None
    now += 0.1
    assert cache.current(pin, seen(pin)) is None
    cache.close()


@contextmanager
def a_process_that_moves() -> Iterator[tuple[Process, Callable[[], None]]]:
    """A process in a namespace with a bridge, and what brings it to another, empty one."""
    script = (
        "import ctypes\nprint(flush=True)\ninput()\n"
        "ctypes.CDLL(None).unshare(0x40000000)\nprint(flush=True)\ninput()\n"
    )
    start = ["unshare", "--net", sys.executable, "-c", script]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        made = Process(child.pid, os.open(f"/proc/{child.pid}", os.O_RDONLY))
        made.batch("link add br0 type bridge\n")

        def move() -> None:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            child.stdout.readline()

        try:
            yield made, move
        finally:
            os.close(made.directory)
            child.kill()
            child.communicate()


async def test_a_process_that_changes_its_namespace_gets_the_new_links(
    cache: NetworkCache,
) -> None:
    live = LiveNetworks(cache, ())
    with a_process_that_moves() as (process, move), pinned(process) as pin:
        found = await live.links("pod", pin, pin)
        assert found.links is not None and [one.name for one in found.links] == ["lo", "br0"]
        first = seen(pin)
        move()
        found = live.current(pin) or await live.links("pod", pin, pin)
        assert found.links is not None and [one.name for one in found.links] == ["lo"]
        await eventually(lambda: first not in cache, "the one that was left is let go")
        assert seen(pin) in cache


async def test_a_subscriber_follows_a_process_to_its_new_namespace(cache: NetworkCache) -> None:
    live, notified = LiveNetworks(cache, ()), Notifications()
    with a_process_that_moves() as (process, move), pinned(process) as pin:
        first = await live.follow("pod", pin, None, notified)
        move()
        await notified.soon()  # the first namespace was let go
        second = await live.follow("pod", pin, first, notified)
        assert second == seen(pin) != first
        await notified.quiet()
        process.batch("link set lo up\n")
        await notified.soon()


# Who asks at once shares a reading, and a pod pays for its readings


async def test_all_callers_before_a_reading_begins_share_it(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    found = await asyncio.gather(*(cache.network("pod", pin, seen(pin)) for _ in range(50)))
    assert cache.reads == 1
    assert len({id(one.state) for one in found}) == 1


def paused_reads(begun: asyncio.Event, go_on: asyncio.Event) -> Run:
    """Return what makes a read and then waits: `begun` is set, and `go_on` is awaited."""
    pool = ReadPool()

    async def held_up(pod_key: str, read: Callable[[], Any], what: str) -> Any:
        done = await pool.run(pod_key, read, what)
        begun.set()
        await go_on.wait()
        return done

    return held_up


async def test_a_reading_from_before_the_question_does_not_answer_it(
    process: Process, pin: PinnedProcess
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    cache = NetworkCache(paused_reads(begun, go_on))
    first = asyncio.create_task(cache.network("pod", pin, seen(pin)))
    await begun.wait()
    process.batch("link add br0 type bridge\n")
    second = asyncio.create_task(cache.network("pod", pin, seen(pin)))
    await asyncio.sleep(0)
    go_on.set()
    assert [link.name for link in (await first).state.links] == ["lo"]
    assert [link.name for link in (await second).state.links] == ["lo", "br0"]
    cache.close()


async def test_a_change_taken_by_another_question_stales_a_reading(
    process: Process, pin: PinnedProcess
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    cache = NetworkCache(paused_reads(begun, go_on))
    go_on.set()
    await quietly(cache, pin)
    go_on.clear()
    begun.clear()
    # One is answered from what is held, the other had to wait before that was so.
    entry = cache._entries[seen(pin)]
    reading = asyncio.ensure_future(cache._next_reading(entry, "pod", pin))
    await begun.wait()
    process.batch("link set lo mtu 1400\n")
    assert cache.current(pin, seen(pin)) is None  # it has taken the notification
    go_on.set()
    await reading
    assert cache.current(pin, seen(pin)) is None
    assert (await looked(cache, pin)).state.links[0].mtu == 1400
    cache.close()


async def test_a_pod_whose_readings_have_cost_much_waits_for_the_next(
    process: Process, pin: PinnedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of a CPU, after fifty milliseconds at once."""
    now, slept = 1000.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    times = iter(range(1000))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    # Each reading takes 0.1 s of a CPU.
    monkeypatch.setattr(time, "thread_time", lambda: next(times) * 0.1)
    cache = NetworkCache(ReadPool().run, clock=lambda: now)
    for _ in range(3):
        await cache.network("pod", pin, seen(pin))
        process.batch("link set lo mtu 1400\n", "link set lo mtu 1500\n")
    assert slept == [pytest.approx(0.5), pytest.approx(1.0)]
    with network_namespace() as other, pinned(other) as another:
        await cache.network("another pod", another, seen(another))
    assert len(slept) == 2
    cache.close()


# Bounded


@contextmanager
def several(count: int) -> Iterator[list[PinnedProcess]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(pinned(stack.enter_context(network_namespace())))
            for _ in range(count)
        ]


async def test_a_pod_with_too_many_loses_its_least_recently_used_one(
    cache: NetworkCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PER_POD", 2)
    with several(4) as (first, second, third, other):
        for pin, pod_key in ((first, "pod"), (other, "other"), (second, "pod")):
            await cache.network(pod_key, pin, seen(pin))
        await looked(cache, first)
        await cache.network("pod", third, seen(third))
        assert [seen(pin) in cache for pin in (first, second, third, other)] == [
            *(True, False, True, True)
        ]
        assert cache.evictions == 1


async def test_only_a_followed_namespace_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = NetworkCache(ReadPool().run, limit=1)
    with several(2) as (watched, other):
        notified = Notifications()
        await cache.subscribe("pod", watched, seen(watched), notified)
        reads = cache.reads
        for _ in range(2):
            found = await looked(cache, other, "other")
            assert [link.name for link in found.state.links] == ["lo"]
            assert found.answers is None
        assert cache.reads == reads + 2
        assert seen(watched) in cache and seen(other) not in cache
        with pytest.raises(QuotaExceeded):
            await cache.subscribe("other", other, seen(other), notified)
        cache.unsubscribe(seen(watched), notified)
        await looked(cache, other, "other")
        assert seen(watched) not in cache and seen(other) in cache
    cache.close()


async def test_a_large_namespace_is_not_kept(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    process.batch(
        "link set lo up\n",
        *(f"address add 10.0.{n}.1/32 dev lo\n" for n in range(module.MAX_ITEMS)),
    )
    for reads in (1, 2):
        found = await looked(cache, pin)
        assert len(found.state.links[0].addresses) > module.MAX_ITEMS
        assert (found.answers, cache.reads) == (None, reads)


async def test_many_links_are_read_off_the_loop_and_are_the_same_state(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    process.batch(*(f"link add br{n} type bridge\n" for n in range(MAX_INLINE_LINKS)))
    first = await looked(cache, pin)
    assert cache.current(pin, seen(pin)) is None
    assert (await looked(cache, pin)).state is first.state


async def test_too_many_links_are_refused_each_time_and_still_followed(
    cache: NetworkCache, process: Process, pin: PinnedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "MAX_LINKS", 1)
    process.batch("link add br0 type bridge\n")
    notified = Notifications()
    await cache.subscribe("pod", pin, seen(pin), notified)
    for _ in range(2):
        with pytest.raises(ResourceExhausted):
            await cache.network("pod", pin, seen(pin))
    assert notified.times == 0
    process.batch("link delete br0\n")
    await notified.soon()
    assert [link.name for link in (await looked(cache, pin)).state.links] == ["lo"]
    cache.unsubscribe(seen(pin), notified)


async def test_the_holders_of_a_namespace_are_bounded(
    cache: NetworkCache, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HOLDERS", 1)
    before = open_descriptors()
    with pinned(process) as pin, entered(process) as second, pinned_pid(second) as other:
        await quietly(cache, pin)
        held = open_descriptors()
        assert cache.current(other, seen(other)) is not None
        assert open_descriptors() == held
    cache.close()
    await eventually(lambda: open_descriptors() == before, "all is closed")


@pytest.mark.parametrize(
    ("kind", "index", "is_inline"),
    [("", 1, True), ("veth", 2, True), ("", 2, False), ("bond", 2, False)],
    ids=["loopback", "veth", "hardware", "bond"],
)
def test_the_loop_reads_counters_if_no_driver_counts_misses(
    kind: str, index: int, is_inline: bool
) -> None:
    """/proc/net/dev adds them to those that were dropped."""
    reading = NetworkReading((Link(index, "eth0", kind=kind),), b"")
    assert reading.is_inline is is_inline


def test_addresses_that_may_be_incomplete_are_not_vouched_for() -> None:
    assert NetworkReading((), b"").is_inline
    assert not NetworkReading((), b"x" * 4096).is_inline
    assert not NetworkReading((), None).is_inline


# Let go


@contextmanager
def entered(process: Process) -> Iterator[int]:
    """A second process in a namespace."""
    enter = ["nsenter", "-t", str(process.pid), "-n", "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(enter, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        made.stdout.readline()
        try:
            yield made.pid
        finally:
            made.kill()
            made.communicate()


@contextmanager
def pinned_pid(pid: int) -> Iterator[PinnedProcess]:
    pin = pin_pid(pid)
    try:
        yield pin
    finally:
        pin.close()


def is_there(link: str) -> bool:
    return os.path.exists(f"/sys/class/net/{link}")


def add_veth(name: str, process: Process) -> None:
    """Make a veth of the host whose other end is in a namespace."""
    peer = ["peer", "name", "eth0", "netns", str(process.pid)]
    subprocess.run(["ip", "link", "add", name, "type", "veth", *peer], check=True)


@pytest.mark.parametrize("is_followed", [False, True], ids=["asked", "followed"])
async def test_a_namespace_ends_with_its_last_process(
    cache: NetworkCache, is_followed: bool
) -> None:
    """Seen from the host: the other end of its veth goes. No call comes meanwhile."""
    name, notified = f"nt{os.getpid() % 100000}{is_followed:d}", Notifications()
    with network_namespace() as process, pinned(process) as pin:
        process.batch("link set lo up\n")
        add_veth(name, process)
        namespace = seen(pin)
        await quietly(cache, pin)
        if is_followed:
            await cache.subscribe("pod", pin, namespace, notified)
        assert namespace in cache and is_there(name)
    await eventually(lambda: not is_there(name), "the namespace is let go", seconds=3)
    assert namespace not in cache
    assert not is_followed or notified.times


async def test_a_namespace_is_released_when_its_requester_has_ended(
    cache: NetworkCache, process: Process
) -> None:
    with entered(process) as second, pinned_pid(second) as pin:
        namespace = seen(pin)
        await quietly(cache, pin)
    await eventually(lambda: namespace not in cache, "it is let go", seconds=3)


async def test_a_namespace_that_one_of_two_holders_has_left_is_held(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    with entered(process) as second, pinned_pid(second) as other:
        await quietly(cache, pin)
        assert cache.current(other, seen(other)) is not None
    await asyncio.sleep(0.1)
    assert cache.current(pin, seen(pin)) is not None


async def test_an_unused_namespace_is_released(
    process: Process, pin: PinnedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SWEEP_SECONDS", 0.01)
    now = 1000.0
    cache = NetworkCache(ReadPool().run, clock=lambda: now)
    await quietly(cache, pin)
    notified = Notifications()
    await cache.subscribe("pod", pin, seen(pin), notified)
    now += 3600
    await asyncio.sleep(0.1)
    assert seen(pin) in cache  # it is followed
    cache.unsubscribe(seen(pin), notified)
    await eventually(lambda: len(cache) == 0, "it is let go")
    assert notified.times == 0


async def test_a_process_that_has_ended_is_no_reason_to_refuse_others(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    """The first who asks is the one that is read through."""
    with entered(process) as second, pinned_pid(second) as other:
        first = asyncio.create_task(cache.network("pod", other, seen(other)))
        also = asyncio.create_task(LiveNetworks(cache, ()).links("pod", pin, pin))
        await asyncio.sleep(0)
    with contextlib.suppress(Unauthenticated, NamespaceChangedError):
        await first
    assert (await also).links is not None


async def test_the_node_s_own_network_is_not_looked_into(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    live, notified = LiveNetworks(cache, {seen(pin)}), Notifications()
    assert await live.follow("pod", pin, None, notified) is None
    found = live.current(pin)
    assert found is not None and found.host_network and found.links == ()
    assert len(cache) == 0


async def test_a_namespace_released_during_a_read_is_closed_after_it(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = open_held(process.directory, namespace_of(process.directory))
    go_on, begun = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> tuple[Link, ...]:
        begun.set()
        go_on.wait(10)
        return ()

    monkeypatch.setattr("netutil.agent.facts.network_state.dump_links", slow)
    reading = asyncio.create_task(asyncio.to_thread(held.read, process.directory))
    await asyncio.to_thread(begun.wait, 10)
    held.close()
    assert held.fileno() >= 0
    go_on.set()
    await reading
    assert held.fileno() == -1
    with pytest.raises(NamespaceChangedError):
        held.read(process.directory)


async def test_a_failed_reading_leaves_no_half_read_socket(
    cache: NetworkCache, process: Process, pin: PinnedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quietly(cache, pin)
    process.batch("link add br0 type bridge\n")
    with monkeypatch.context() as patched:
        patched.setattr("netutil.agent.facts.rtnetlink.MAX_DUMP_BYTES", 10)
        with pytest.raises(ResourceExhausted):
            await looked(cache, pin)
    assert [link.name for link in (await looked(cache, pin)).state.links] == ["lo", "br0"]
    assert len(cache) == 1


# Followed


@pytest.fixture
async def notified(cache: NetworkCache, pin: PinnedProcess) -> AsyncIterator[Notifications]:
    notified, namespace = Notifications(), seen(pin)
    await cache.subscribe("pod", pin, namespace, notified)
    yield notified
    cache.unsubscribe(namespace, notified)
    cache.unsubscribe(namespace, notified)
    assert not cache.is_subscribed(namespace, notified)


FOLLOWED = [
    ["link", "set", "lo", "up"],
    ["link", "add", "br0", "type", "bridge"],
    ["address", "add", "192.0.2.1/24", "dev", "lo"],
    ["address", "add", "2001:db8::1/64", "dev", "lo"],
]


@pytest.mark.parametrize("change", FOLLOWED, ids=lambda change: " ".join(change[:2]))
async def test_links_and_addresses_notify(
    process: Process, notified: Notifications, change: list[str]
) -> None:
    process.ip(*change)
    await notified.soon()


async def test_default_routes_notify_and_other_routes_do_not(
    process: Process, notified: Notifications
) -> None:
    process.ip("link", "set", "lo", "up")
    await notified.soon()
    await notified.not_soon()
    process.ip("route", "add", "198.51.100.0/24", "dev", "lo")
    await notified.not_soon()
    for verb in ("add", "del"):
        process.ip("route", verb, "default", "dev", "lo")
        await notified.soon()


async def test_source_based_routes_and_their_rules_notify(
    process: Process, notified: Notifications
) -> None:
    process.ip("link", "set", "lo", "up")
    await notified.soon()
    await notified.not_soon()
    for verb in ("add", "del"):
        process.ip("route", verb, "default", "dev", "lo", "table", "100")
        await notified.soon()
        for family in ("-4", "-6"):
            process.ip(family, "rule", verb, "from", "all", "table", "100")
            await notified.soon()


async def test_a_change_that_a_call_finds_notifies_subscribers(
    cache: NetworkCache, process: Process, pin: PinnedProcess, notified: Notifications
) -> None:
    await quietly(cache, pin)
    before = notified.times
    process.ip("link", "set", "lo", "mtu", "1400")
    assert cache.current(pin, seen(pin)) is None
    assert notified.times == before + 1


async def test_a_flood_notifies_at_a_bounded_rate_to_its_end(
    process: Process, notified: Notifications
) -> None:
    lines = [f"address add 10.{n // 250}.{n % 250}.1/32 dev lo" for n in range(5000)]
    flood = await asyncio.create_subprocess_exec(
        *("nsenter", "-t", str(process.pid), "-n", "ip", "-batch", "-"),
        stdin=asyncio.subprocess.PIPE,
    )
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await flood.communicate("\n".join(lines).encode())
    await notified.soon()
    await notified.quiet()
    assert 1 <= notified.times <= 2 + 55 * (loop.time() - begun)
    before = notified.times
    process.ip("address", "del", "10.0.0.1/32", "dev", "lo")  # notifications continue after ENOBUFS
    await notified.soon()
    assert notified.times > before


async def test_subscribers_are_notified_until_they_unsubscribe(
    cache: NetworkCache, process: Process, pin: PinnedProcess
) -> None:
    first, second, live = Notifications(), Notifications(), LiveNetworks(cache, ())
    namespace = await live.follow("pod", pin, None, first)
    assert namespace == seen(pin)
    assert await live.follow("pod", pin, None, second) == namespace
    assert await live.follow("pod", pin, namespace, second) == namespace
    process.ip("link", "set", "lo", "up")
    await first.soon()
    await second.soon()
    await second.quiet()
    times = first.times
    live.unfollow(namespace, first)
    live.unfollow(namespace, first)
    process.ip("link", "add", "br0", "type", "bridge")
    await second.soon()
    assert first.times == times
    live.unfollow(namespace, second)


# Where the kernel, or this mount of /proc, shows less


@pytest.mark.parametrize("missing", ["dev", "if_inet6"])
async def test_a_missing_file_of_proc_net_does_not_change_the_answer(
    cache: NetworkCache,
    process: Process,
    pin: PinnedProcess,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`if_inet6` is missing in a kernel without IPv6, `dev` where /proc has `subset=pid`."""
    open_file = os.open

    def opened(path: str, *arguments: Any, **options: Any) -> int:
        if path.endswith(f"/net/{missing}"):
            raise FileNotFoundError(2, os.strerror(2), path)
        return open_file(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", opened)
        first = await cache.network("pod", pin, seen(pin))
    assert [link.name for link in first.state.links] == ["lo"]
    # Without counters it is read each time.
    assert (cache.current(pin, seen(pin)) is not None) is (missing == "if_inet6")
    process.batch("link set lo mtu 1400\n")
    assert (await looked(cache, pin)).state.links[0].mtu == 1400


async def test_an_abandoned_reading_leaves_nothing_open(
    process: Process, pin: PinnedProcess
) -> None:
    """The pool gives a reading up that takes too long; what it opens then is held or closed."""
    go_on = threading.Event()

    async def given_up(pod_key: str, read: Callable[[], Any], what: str) -> Any:
        del pod_key, what

        def late() -> None:
            go_on.wait(10)
            with contextlib.suppress(NamespaceChangedError):
                read()

        started.append(threading.Thread(target=late))
        started[0].start()
        raise Unavailable(Reason.READ_TIMED_OUT, "It took too long.")

    started: list[threading.Thread] = []
    before = open_descriptors()
    cache = NetworkCache(given_up)
    with pytest.raises(Unavailable):
        await cache.network("pod", pin, seen(pin))
    cache.close()
    go_on.set()
    await asyncio.to_thread(started[0].join)
    await eventually(lambda: open_descriptors() == before, "all is closed")


async def test_a_namespace_is_closed_at_once_without_a_thread(
    process: Process, pin: PinnedProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NetworkCache(ReadPool().run)
    await quietly(cache, pin)
    before = open_descriptors()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        cache.close()
    assert open_descriptors() == before - 6  # and a process's pidfd and directory
