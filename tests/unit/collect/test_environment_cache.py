"""The limits of held environments: age, size and owner."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tracemalloc
from collections.abc import Iterator

import pytest
from netutil.agent.collect import environment_cache
from netutil.agent.collect.environment_cache import (
    IDLE_SECONDS,
    MAX_BLOCK_BYTES,
    MAX_BYTES,
    MAX_BYTES_PER_POD,
    MAX_VARIABLES,
    EnvironmentCache,
    HeldEnvironment,
    held_environment,
    read_held,
)
from netutil.agent.messages import convert
from netutil.agent.parsers.plugin_devices import devices_of_both


class Clock:
    """A clock that changes only when it is set."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def environment(name: str, size_bytes: int = 4096) -> HeldEnvironment:
    return held_environment(f"NAME={name}\0REST={'x' * size_bytes}\0".encode())


@pytest.fixture
def directory() -> Iterator[int]:
    """The directory in /proc of a process with a small environment."""
    process = subprocess.Popen(["env", "-i", "WHO=me", "sleep", "infinity"])
    while b"sleep" not in _command(process.pid):
        os.sched_yield()
    opened = os.open(f"/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
    yield opened
    os.close(opened)
    process.kill()
    process.wait()


def _command(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().split(b"\0")[0]


def test_the_same_bytes_are_parsed_once(directory: int) -> None:
    held = read_held(directory, None)
    assert held.environment.variables == {"WHO": "me"}
    assert read_held(directory, held) is held
    assert read_held(directory, environment("other")) is not held


async def test_an_entry_is_found_under_its_key_of_its_pod() -> None:
    cache = EnvironmentCache()
    held = environment("one")
    cache.put("pod", 1, held)
    assert cache.get("pod", 1) is held
    assert cache.get("pod", 2) is None and cache.get("other", 1) is None
    newer = environment("newer")
    cache.put("pod", 1, newer)
    assert cache.get("pod", 1) is newer
    assert (len(cache), cache.size_bytes) == (1, newer.size_bytes)


async def test_an_environment_of_eight_megabytes_is_not_held() -> None:
    cache = EnvironmentCache()
    cache.put("pod", 1, environment("small"))
    for large in (
        held_environment(b"".join(b"V%02d=%0100000d\0" % (n, n) for n in range(80))),
        environment("larger than is held", MAX_BLOCK_BYTES),
        held_environment(b"".join(b"V%d=\0" % number for number in range(MAX_VARIABLES + 1))),
    ):
        cache.put("pod", 1, large)
        assert (len(cache), cache.size_bytes) == (0, 0)


async def test_a_pod_past_its_limit_loses_its_own_oldest() -> None:
    cache = EnvironmentCache()
    cache.put("other", 1, environment("other"))
    one = environment("x", 32 * 1024)
    count = MAX_BYTES_PER_POD // one.size_bytes
    for key in range(count):
        cache.put("pod", key, environment("x", 32 * 1024))
    kept = cache.get("pod", 0)
    assert kept is not None
    cache.put("pod", 0, kept)  # it is used again
    cache.put("pod", count, environment("x", 32 * 1024))
    assert cache.get("pod", 1) is None
    assert cache.get("pod", 0) is kept and cache.get("other", 1) is not None
    assert cache.size_bytes <= MAX_BYTES_PER_POD + environment("other").size_bytes


async def test_the_total_limit_releases_the_pod_that_asked_longest_ago() -> None:
    cache = EnvironmentCache()
    one = environment("x", MAX_BLOCK_BYTES // 2)
    pods = MAX_BYTES // one.size_bytes
    for number in range(pods + 1):
        cache.put(f"pod {number}", 1, environment("x", MAX_BLOCK_BYTES // 2))
    assert cache.get("pod 0", 1) is None
    assert cache.get(f"pod {pods}", 1) is not None
    assert cache.size_bytes <= MAX_BYTES


async def test_an_unused_entry_is_released() -> None:
    clock = Clock()
    cache = EnvironmentCache(clock)
    cache.put("pod", 1, environment("one"))
    cache.put("ended", 1, environment("ended"))
    clock.seconds += IDLE_SECONDS - 1
    held = cache.get("pod", 1)
    assert held is not None
    cache.put("pod", 1, held)
    clock.seconds += 2
    cache.release_unused()
    assert cache.get("ended", 1) is None and cache.get("pod", 1) is held
    clock.seconds += IDLE_SECONDS
    cache.release_unused()
    assert (len(cache), cache.size_bytes) == (0, 0)


async def test_it_is_released_without_another_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_cache, "IDLE_SECONDS", 0.02)
    monkeypatch.setattr(environment_cache, "_SWEEP_SECONDS", 0.01)
    cache = EnvironmentCache()
    cache.put("pod", 1, environment("one"))
    async with asyncio.timeout(20):
        while len(cache):  # noqa: ASYNC110 - what is released sets no event
            await asyncio.sleep(0.005)
    assert cache.size_bytes == 0


@pytest.mark.parametrize(
    "block",
    [
        b"".join(b"SERVICE_%d_PORT_8080_TCP_ADDR=10.96.0.%d\0" % (n, n) for n in range(45)),
        b"".join(b"V%d=\0" % number for number in range(MAX_VARIABLES)),
        b"BAD=" + b"\xff" * (MAX_BLOCK_BYTES - 8),
        "WIDE=\U0001f600".encode() + b"x" * (MAX_BLOCK_BYTES - 16),
        b"PCIDEVICE_A=0000:3b:01.0\0PCIDEVICE_A_INFO="
        b'{"0000:3b:01.0":{"a":[' + b",".join([b"{}"] * 20000) + b"]}}",
    ],
    ids=["usual", "many", "no UTF-8", "wide", "devices"],
)
def test_it_takes_no_more_memory_than_is_counted(block: bytes) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = held_environment(bytes(bytearray(block)))
        held.answer = convert.environment(held.environment, held.environment.variables)
        answer_bytes = held.answer.ByteSize()
        held.set_named(None, devices_of_both(held.device_variables, None))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    # What protobuf allocates is not traced; a message takes its bytes, and a node for each entry.
    taken += answer_bytes + 100 * len(held.environment.variables)
    assert taken < held.size_bytes


def test_devices_are_of_the_two_environments_that_named_them() -> None:
    own, start, another = environment("own"), environment("start"), environment("start")
    assert not own.is_named_with(None)
    own.set_named(None, "devices")
    assert own.is_named_with(None) and not own.is_named_with(start)
    own.set_named(start, "devices")
    assert own.is_named_with(start)
    assert not own.is_named_with(another) and not own.is_named_with(None)
    del start
    assert not own.is_named_with(None)


async def test_devices_of_the_start_count_for_each_process() -> None:
    cache = EnvironmentCache()
    addresses = ",".join(f"0000:00:{number:02x}.0" for number in range(200))
    start = held_environment(f"PCIDEVICE_X={addresses}\0".encode())
    try:
        for number in range(100):
            own = held_environment(f"A={number}\0".encode())
            cache.put("pod", (number, ""), own)
            for _ in range(2):  # counted once
                cache.keep_named("pod", (number, ""), own, start, "devices")
            assert own.is_named_with(start)
            if number == 1:
                assert cache.size_bytes == 2 * (own.size_bytes + start.device_bytes)
        assert cache.size_bytes <= MAX_BYTES_PER_POD
        assert len(cache) < 100
        cache.keep_named("pod", "not held", own, start, "devices")
    finally:
        if cache._sweep is not None:
            cache._sweep.cancel()
