"""The first process of a container is found by start times, not by numbers."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from netutil.agent.errors import Reason, ResourceExhausted, Unauthenticated
from netutil.agent.identity import first_process
from netutil.agent.identity.first_process import ProcessStart, find_first, pin_same, start_of
from netutil.agent.identity.namespaces import MAX_PROCESSES
from netutil.agent.identity.pidfd import pin_pid

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


@pytest.fixture(params=["pidfs", "start time"])
def _numbers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are distinguished as this kernel allows, and as before Linux 6.9."""
    if request.param == "start time":
        monkeypatch.setattr(first_process, "_has_pidfs", lambda: False)


def start(pid: int) -> ProcessStart:
    with closing(pin_pid(pid)) as process:
        return start_of(process)


@pytest.mark.usefixtures("_numbers")
def test_a_pid_that_was_given_again_is_another_process(three: tuple[int, ...]) -> None:
    first = start(three[0])
    assert pin_same(ProcessStart(first.pid, first.number + 1)) is None
    same = pin_same(first)
    assert same is not None and same.pid == three[0]
    same.close()


@pytest.mark.usefixtures("_numbers")
def test_processes_have_different_numbers_and_keep_them(three: tuple[int, ...]) -> None:
    found = [start(pid) for pid in three]
    assert len({one.number for one in found}) == len(three)
    assert found == [start(pid) for pid in three]


@pytest.mark.usefixtures("_numbers")
def test_a_process_that_has_ended_is_not_pinned_again() -> None:
    ended = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    found = start(ended.pid)
    ended.communicate()
    assert pin_same(found) is None


def test_a_pidfd_has_an_inode_of_its_own_from_linux_6_9_on() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert first_process._has_pidfs() == (release >= (6, 9))


def test_process_start_times_are_in_clock_ticks(
    three: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_process, "_has_pidfs", lambda: False)
    assert start(three[0]) == ProcessStart(three[0], at(three[0]))


def test_a_container_of_too_many_processes_is_not_searched() -> None:
    with pytest.raises(ResourceExhausted) as caught:
        find_first(range(1, MAX_PROCESSES + 2))
    assert caught.value.reason is Reason.TOO_MANY_PROCESSES
