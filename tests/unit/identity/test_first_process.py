"""The first process of a container is found by start times, not by numbers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from netutil.agent.errors import Reason, ResourceExhausted, Unauthenticated
from netutil.agent.identity import first_process
from netutil.agent.identity.first_process import find_first
from netutil.agent.identity.namespaces import MAX_PROCESSES

TICK_SECONDS = 2 / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def three() -> Iterator[tuple[int, ...]]:
    """Pids of three processes in the order of their start."""
    started = []
    try:
        for _ in range(3):
            started.append(subprocess.Popen(["sleep", "60"]))
            time.sleep(TICK_SECONDS)
        yield tuple(process.pid for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()


def first_of(*pids: int) -> int:
    process = find_first(pids)
    try:
        return process.pid
    finally:
        process.close()


def test_the_one_that_started_first_is_found_in_any_order(three: tuple[int, ...]) -> None:
    one, two, last = three
    assert first_of(last, one, two) == one
    assert first_of(last, two) == two


def test_ended_processes_are_skipped(three: tuple[int, ...]) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert first_of(ended.pid, *three[1:]) == three[1]
    with pytest.raises(Unauthenticated) as caught:
        find_first([ended.pid])
    assert caught.value.reason is Reason.PEER_GONE


def test_the_runtime_is_the_parent_of_the_first_in_one_tick(
    three: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, last = three
    starts = {one: (7, two), two: (7, 1), last: (7, two)}
    monkeypatch.setattr(first_process, "_start", starts.get)
    pin = first_process._pin_if_started
    monkeypatch.setattr(first_process, "_pin_if_started", lambda pid, _: pin(pid, at(pid)))
    assert first_of(one, two, last) == two


def at(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return int(stat.read().rpartition(")")[2].split()[19])


def test_a_container_of_too_many_processes_is_not_searched() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        find_first(range(1, MAX_PROCESSES + 2))
    assert caught.value.reason is Reason.TOO_MANY_PROCESSES
