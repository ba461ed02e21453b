"""Processes and threads as they are read, from real processes and cgroup.procs files."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from netutil.agent.collect import processes
from netutil.agent.collect.processes import (
    SLICE_ROWS,
    ProcessFacts,
    Quota,
    boot_seconds,
    read_cgroup,
    read_process,
)

from tests.support.lab import first_thread
from tests.support.lab.reused_pid import process_under
from tests.support.processes import open_descriptors, wait_for_state

FIRST_THREAD = first_thread.__file__
THREADS = """
import sys, threading
threading.stack_size(65536)
end = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=end.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def sleeping() -> Iterator[int]:
    with subprocess.Popen(["sleep", "infinity"]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@contextmanager
def program(*argv: str) -> Iterator[int]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *argv], stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.stdin.close()
            process.kill()


def cgroup(directory: Path, *pids: int) -> str:
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    return str(directory)


def read(
    directory: str, quota: Quota | None = None, *, with_threads: bool = False
) -> list[ProcessFacts]:
    quota = quota or Quota(100, 10_000)
    slices = read_cgroup(directory, quota, with_threads=with_threads, boot_seconds=boot_seconds())
    return [one for each in slices for one in each.processes]


def test_processes_below_the_cgroup_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with sleeping() as one, sleeping() as other:
        cgroup(tmp_path / "below", other)
        assert {each.number for each in read(cgroup(tmp_path, one))} == {one, other}


def test_a_cgroup_that_is_skipped_is_not_read(tmp_path: Path) -> None:
    for name in ("monitor", "container"):
        (tmp_path / name / "below").mkdir(parents=True)
    with sleeping() as monitor, sleeping() as below, sleeping() as other, sleeping() as own:
        cgroup(tmp_path, own)
        cgroup(tmp_path / "monitor", monitor)
        cgroup(tmp_path / "monitor" / "below", below)
        cgroup(tmp_path / "container", other)
        cgroup(tmp_path / "container" / "below", other)
        slices = read_cgroup(
            str(tmp_path),
            Quota(100, 100),
            with_threads=False,
            boot_seconds=boot_seconds(),
            skips=lambda name: name == "container",
        )
        found = [one.number for each in slices for one in each.processes]
    assert sorted(found) == sorted((own, monitor, below))


def test_the_facts_are_those_of_psutil(tmp_path: Path) -> None:
    with sleeping() as pid:
        wait_for_state(pid, "S")
        (found,) = read(cgroup(tmp_path, pid))
        real = psutil.Process(pid)
        assert (found.name, found.state) == ("sleep", "sleeping")
        assert found.rss_bytes == real.memory_info().rss
        assert found.cpu_seconds == round(sum(real.cpu_times()[:2]), 2)
        assert abs(found.started_seconds - real.create_time()) < 1
        assert (found.thread_count, found.error) == (1, "")


def test_no_more_processes_are_read_than_the_quota_has(tmp_path: Path) -> None:
    with sleeping() as one, sleeping() as other:
        quota = Quota(1, 10)
        assert [each.number for each in read(cgroup(tmp_path, one, other), quota)] == [one]
        assert (quota.processes, quota.processes_truncated) == (0, True)
        whole = Quota(2, 10)
        assert len(read(str(tmp_path), whole)) == 2
        assert not whole.processes_truncated


def test_no_more_cgroups_are_read_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sleeping() as one, sleeping() as other:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            cgroup(tmp_path / name, other)
        directory = cgroup(tmp_path, one)
        for limit, truncated in ((3, False), (2, True), (1, True)):
            monkeypatch.setattr(processes, "MAX_CGROUPS", limit)
            quota = Quota(9, 9)
            expected = {one} if limit == 1 else {one, other}
            assert {each.number for each in read(directory, quota)} == expected
            assert quota.processes_truncated is truncated


def test_a_cgroup_that_is_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "removed").mkdir()  # no cgroup.procs in it
    with sleeping() as pid:
        assert [one.number for one in read(cgroup(tmp_path, pid))] == [pid]
    assert read(str(tmp_path / "elsewhere")) == []


def test_a_cgroup_with_too_long_a_path_hides_itself_alone(tmp_path: Path) -> None:
    previous = os.open(".", os.O_RDONLY)
    with sleeping() as pid:
        directory = cgroup(tmp_path, pid)
        os.chdir(tmp_path)
        try:
            for _ in range(20):  # PATH_MAX is 4096
                os.mkdir("d" * 255)
                os.chdir("d" * 255)
                Path("cgroup.procs").touch()
            os.fchdir(previous)
            quota = Quota(9, 9)
            assert [one.number for one in read(directory, quota)] == [pid]
        finally:
            os.fchdir(previous)
            os.close(previous)
        assert quota.processes_truncated


def test_a_cgroup_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").mkdir()
    with pytest.raises(IsADirectoryError):
        read(str(tmp_path))


def test_a_process_in_two_lists_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    with sleeping() as one, sleeping() as other:
        cgroup(tmp_path / "below", one, other)
        quota = Quota(2, 2)
        found = read(cgroup(tmp_path, one, one), quota)
        assert [each.number for each in found] == [one, other]
        assert not quota.processes_truncated


def test_no_more_threads_are_read_than_the_quota_has(tmp_path: Path) -> None:
    with program("-c", THREADS, "9") as pid:
        quota = Quota(1, 4)
        (found,) = read(cgroup(tmp_path, pid), quota, with_threads=True)
        assert (len(found.threads), found.thread_count) == (4, 10)
        assert (quota.threads, quota.threads_truncated) == (0, True)
        whole = Quota(1, 10)
        (found,) = read(str(tmp_path), whole, with_threads=True)
        assert len(found.threads) == 10 and not whole.threads_truncated


def test_many_threads_come_in_slices(tmp_path: Path) -> None:
    with program("-c", THREADS, str(2 * SLICE_ROWS)) as pid:
        slices = list(
            read_cgroup(cgroup(tmp_path, pid), Quota(1, 1000), with_threads=True, boot_seconds=0.0)
        )
        numbers = [each.number for one in slices for each in one.processes[0].threads]
        assert [len(one.processes[0].threads) for one in slices] == [SLICE_ROWS, SLICE_ROWS, 1]
        assert sorted(map(str, numbers)) == sorted(os.listdir(f"/proc/{pid}/task"))


def test_many_processes_come_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SLICE_ROWS", 2)
    with sleeping() as one, sleeping() as two, sleeping() as three:
        directory = cgroup(tmp_path, one, two, three)
        slices = list(read_cgroup(directory, Quota(9, 9), with_threads=False, boot_seconds=0.0))
        assert [len(each.processes) for each in slices] == [2, 1]


def test_long_lists_of_cpus_end_a_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SLICE_CPU_LIST_CHARACTERS", 2)
    with program("-c", THREADS, "9") as pid:
        directory = cgroup(tmp_path, pid)
        slices = list(read_cgroup(directory, Quota(9, 99), with_threads=True, boot_seconds=0.0))
        assert len(slices) > 1
        assert sum(len(one.processes[0].threads) for one in slices) == 10


def test_a_process_that_has_ended_is_left_out(tmp_path: Path) -> None:
    with sleeping() as pid:
        pass
    assert read(cgroup(tmp_path, pid), with_threads=True) == []
    assert read_process(pid) is None


def test_descriptors_of_one_process_are_counted_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sleeping() as pid:
        found = read_process(pid)
        assert found is not None and found.descriptors == len(os.listdir(f"/proc/{pid}/fd"))
        monkeypatch.setattr(processes, "MAX_DESCRIPTORS", 2)
        found = read_process(pid)
        assert found is not None and found.descriptors == 2


def test_a_zombie_has_no_descriptors() -> None:
    with subprocess.Popen(["sleep", "0"]) as process:
        wait_for_state(process.pid, "Z")
        found = read_process(process.pid)
        assert found is not None and found.state == "zombie"
        assert found.descriptors == 0


def test_a_process_that_left_the_cgroup_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sleeping() as pid:
        listings = iter([[pid], []])
        monkeypatch.setattr(processes, "_numbers_below", lambda *_: iter(next(listings)))
        assert read(cgroup(tmp_path, pid)) == []


def test_a_zombie_has_no_memory(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        wait_for_state(process.pid, "Z")
        (found,) = read(cgroup(tmp_path, process.pid), with_threads=True)
    assert (found.state, found.rss_bytes, found.threads, found.error) == ("zombie", None, (), "")
    assert found.name == "true"


def test_a_process_whose_first_thread_has_ended_is_read(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint('ready', flush=True)\nsys.stdin.read()\n")
    with program(str(FIRST_THREAD), str(script)) as pid:
        (found,) = read(cgroup(tmp_path, pid), with_threads=True)
        assert (found.state, found.thread_count) == ("zombie", 2)
        states = {one.number == pid: one.state for one in found.threads}
        assert states[True] == "zombie"
        # It has said that it is ready, and is about to wait for its input.
        assert states[False] in ("running", "sleeping")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to choose a pid")
def test_a_number_that_is_reused_meanwhile_is_left_out(tmp_path: Path) -> None:
    with sleeping() as pid:
        slices = read_cgroup(
            cgroup(tmp_path, pid), Quota(9, 9), with_threads=True, boot_seconds=0.0
        )
        process = psutil.Process(pid)
    with process_under(pid):
        assert not processes._is_same(process)
        assert list(processes._read_process(process, Quota(9, 9), True, 0.0)) == []
        assert [one.number for each in slices for one in each.processes] == [pid]  # not begun yet


def test_a_thread_that_has_ended_is_left_out() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.native_id is not None
    deadline = time.monotonic() + 30
    while processes._thread(os.getpid(), thread.native_id) is not None:
        assert time.monotonic() < deadline, "the kernel does not end the thread"
    assert processes._thread(os.getpid(), os.getppid()) is None  # of another process


def test_a_denial_of_the_kernel_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(process: Any) -> Any:
        raise psutil.AccessDenied(process.pid)

    def deny_affinity(_: int) -> str:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("psutil._psplatform.Process.memory_info", deny)
    monkeypatch.setattr(processes, "affinity_of", deny_affinity)
    with sleeping() as pid:
        (found,) = read(cgroup(tmp_path, pid), with_threads=True)
    assert found.rss_bytes is None and "denies" in found.error
    assert found.threads[0].allowed_cpus is None and "denies" in found.threads[0].error


def test_a_process_of_another_pid_namespace_is_counted(tmp_path: Path) -> None:
    quota = Quota(9, 9)
    with sleeping() as pid:
        assert [one.number for one in read(cgroup(tmp_path, 0, pid, 0), quota)] == [pid]
    assert (quota.hidden, quota.processes) == (2, 8)


def test_a_shortage_of_descriptors_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: Any) -> int:
        raise OSError(24, "Too many open files")

    with sleeping() as pid:
        monkeypatch.setattr(os, "open", none_left)
        with pytest.raises(OSError, match="Too many open files"):
            read(cgroup(tmp_path, pid), with_threads=True)


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    with program("-c", THREADS, "9") as pid:
        before = open_descriptors()
        for _ in range(20):
            read(cgroup(tmp_path, pid), with_threads=True)
        assert open_descriptors() == before


AUDITED = """
import sys
opened = []
from netutil.agent.collect.processes import Quota, read_cgroup
def hook(event, arguments):
    if event == "open":
        opened.append(str(arguments[0]))
def read():
    for _ in read_cgroup(sys.argv[1], Quota(9, 9999), with_threads=True, boot_seconds=0.0):
        pass
read()  # loads what is loaded late
sys.addaudithook(hook)
read()
print(len(opened), *sorted({name.rpartition("/")[2] for name in opened}))
"""


def test_neither_arguments_nor_memory_are_opened(tmp_path: Path) -> None:
    opens = []
    for threads in (50, 100):
        with program("-c", THREADS, str(threads)) as pid:
            argv = [sys.executable, "-c", AUDITED, cgroup(tmp_path, pid)]
            done = subprocess.run(argv, capture_output=True, check=True, text=True)
        number, *names = done.stdout.split()
        opens.append(int(number))
        assert {name for name in names if not name.isdecimal()} == {
            "cgroup.procs",
            "stat",
            "statm",
            "status",
        }
    assert opens[1] - opens[0] == 50 * 3  # of each thread: its directory, status and stat


def test_the_name_of_a_process_is_taken_for_no_field(tmp_path: Path) -> None:
    rename = ctypes.CDLL(None).prctl
    old = Path("/proc/self/comm").read_bytes().strip()
    assert rename(15, b"Threads:\t99", 0, 0, 0) == 0
    try:
        (found,) = read(cgroup(tmp_path, os.getpid()))
    finally:
        rename(15, old, 0, 0, 0)
    assert (found.name, found.thread_count) == (
        "Threads:\t99",
        len(os.listdir("/proc/self/task")),
    )
