"""The affinity of a process: as the kernel has it at that moment, of a thread that runs."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.collect.cpu_collector import process_affinity
from netutil.agent.facts import affinity
from netutil.agent.facts.affinity import read_affinity
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.cpulist import format_cpu_list

from tests.support.processes import open_descriptors, pinned
from tests.unit.identity.test_first_thread import other_threads, without_first_thread

CPUS = sorted(os.sched_getaffinity(0))


@contextmanager
def sleeping() -> Iterator[PinnedProcess]:
    with subprocess.Popen(["sleep", "infinity"]) as process, pinned(process.pid) as pin:
        try:
            yield pin
        finally:
            process.kill()


def test_it_is_what_the_kernel_has_after_each_change() -> None:
    chance = random.Random(18)  # noqa: S311 - not a secret
    with sleeping() as process:
        for _ in range(300):
            cpus = chance.sample(CPUS, chance.randrange(1, len(CPUS) + 1))
            os.sched_setaffinity(process.pid, cpus)
            assert process_affinity(process) == format_cpu_list(cpus)
            assert process.status().cpus_allowed == format_cpu_list(cpus)


def test_an_ended_process_has_none() -> None:
    with sleeping() as process:
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_affinity(process) is None
    assert process_affinity(process) is None  # closed, too


def test_a_reaped_process_has_no_affinity() -> None:
    """The path of its open directory then ends with " (deleted)"."""
    with subprocess.Popen(["sleep", "infinity"]) as process, pinned(process.pid) as pin:
        process.kill()
        process.wait()
        assert process_affinity(pin) is None


def test_a_reused_pid_returns_nothing() -> None:
    """The mask is asked for by number: that the process still runs is seen afterwards."""
    with sleeping() as ended:
        directory = os.dup(ended.directory())
        os.kill(ended.pid, 9)
    try:
        with pytest.raises((ProcessLookupError, FileNotFoundError)):
            read_affinity(directory, os.getpid())
    finally:
        os.close(directory)


def test_a_process_without_its_first_thread_has_another_threads(tmp_path: Path) -> None:
    if len(CPUS) < 2:
        pytest.skip("needs two CPUs")
    with without_first_thread("", tmp_path) as pid, pinned(pid) as process:
        before = open_descriptors()
        for cpu in (CPUS[0], CPUS[-1]) * 3:
            os.sched_setaffinity(pid, CPUS[:1])
            for thread in other_threads(pid):
                os.sched_setaffinity(int(thread), [cpu])
            assert process_affinity(process) == str(cpu)
        assert open_descriptors() == before


def test_an_agent_that_may_not_ask_the_kernel_reads_the_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: Any) -> str:
        raise PermissionError

    monkeypatch.setattr("netutil.agent.collect.cpu_collector.read_affinity", refused)
    with sleeping() as process:
        assert process_affinity(process) == format_cpu_list(CPUS)
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process_affinity(process) is None


@pytest.mark.parametrize(
    "cpus", [(0,), (0, 1, 2, 3, 8), (1023, 1024, 1025), (8191,), tuple(range(0, 8192, 3)), ()]
)
def test_a_node_of_more_than_1024_cpus_has_the_right_list(
    cpus: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Kernel:
        @staticmethod
        def sched_getaffinity(number: int, size: int, mask: Any) -> int:
            assert number in (0, os.getpid())
            if size * 8 <= max(cpus, default=0):
                ctypes.set_errno(errno.EINVAL)
                return -1
            words = (ctypes.c_ulong * (size // ctypes.sizeof(ctypes.c_ulong))).from_buffer(mask)
            bits = 8 * ctypes.sizeof(ctypes.c_ulong)
            for cpu in cpus:
                words[cpu // bits] |= 1 << cpu % bits
            return 0

    monkeypatch.setattr(affinity, "_LIBC", Kernel)
    monkeypatch.setattr(affinity, "_mask_type", cache(affinity._mask_type.__wrapped__))
    directory = os.open("/proc/self", os.O_RDONLY)
    try:
        assert read_affinity(directory, os.getpid()) == format_cpu_list(cpus)
    finally:
        os.close(directory)


def test_the_kernel_takes_the_size_of_the_mask() -> None:
    number = threading.get_native_id()
    directory = os.open(f"/proc/self/task/{number}", os.O_RDONLY)
    try:
        assert read_affinity(directory, number) == format_cpu_list(os.sched_getaffinity(0))
    finally:
        os.close(directory)


def test_a_refusal_of_the_kernel_is_an_error() -> None:
    directory = os.open("/proc/self", os.O_RDONLY)
    try:
        with pytest.raises(ProcessLookupError):
            read_affinity(directory, 2**22 + 1)
    finally:
        os.close(directory)


def test_a_list_is_worked_out_once_for_a_mask() -> None:
    with sleeping() as process:
        assert process_affinity(process) is process_affinity(process)
