"""Huge pages that a real process uses in a real cgroup, until its limit kills it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from netutil.agent.facts.cgroup_levels import CgroupLevel, ControllerDirectory
from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue
from netutil.agent.facts.hugepages import HeldPools, HugepageUsage, read_usage

from tests.support.lab.cgroups import find_hierarchies

MIB = 2**20
PAGE = 2 * MIB
OVERCOMMIT = Path(f"/sys/kernel/mm/hugepages/hugepages-{PAGE // 1024}kB/nr_overcommit_hugepages")
USE_TWO_PAGES = f"""
import mmap, sys
MAP_HUGETLB = 0x40000
pages = mmap.mmap(-1, {2 * PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB)
pages[0] = 1
print("one", flush=True)
sys.stdin.readline()
pages[{PAGE}] = 1
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for cgroups and huge pages"),
    pytest.mark.skipif(not OVERCOMMIT.exists(), reason="this kernel has no pages of 2 MiB"),
    pytest.mark.xdist_group("hugepages"),
]


@contextmanager
def overcommit() -> Iterator[None]:
    """Let the kernel make huge pages when they are used, and give them back afterwards."""
    before = OVERCOMMIT.read_text()
    OVERCOMMIT.write_text("4")
    try:
        yield
    finally:
        OVERCOMMIT.write_text(before)


@contextmanager
def hugetlb_cgroup() -> Iterator[ControllerDirectory]:
    """A cgroup that may use one page, where this machine's hugetlb controller is."""
    hierarchies = find_hierarchies()
    for found in hierarchies:
        if "hugetlb" in found.controllers:
            with _cgroup(found.directory) as made:
                (made / "hugetlb.2MB.limit_in_bytes").write_text(str(PAGE))
                yield ControllerDirectory(1, str(made), str(found.directory))
            return
    for found in hierarchies:
        controllers = found.directory / "cgroup.controllers"
        if found.version == 2 and "hugetlb" in controllers.read_text().split():
            with _delegated(found.directory), _cgroup(found.directory) as made:
                (made / "hugetlb.2MB.max").write_text(str(PAGE))
                yield ControllerDirectory(2, str(made), str(found.directory))
            return
    pytest.skip("this machine has no hugetlb controller that can be used")


@contextmanager
def _delegated(top: Path) -> Iterator[None]:
    """Enable the controller for children, and disable it again if it was disabled before."""
    delegated = top / "cgroup.subtree_control"
    before = delegated.read_text().split()
    delegated.write_text("+hugetlb")
    try:
        yield
    finally:
        if "hugetlb" not in before:
            delegated.write_text("-hugetlb")


@contextmanager
def _cgroup(place: Path) -> Iterator[Path]:
    made = place / f"netutil-test-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        assert _soon(lambda: _removed(made))


def _removed(made: Path) -> bool:
    try:
        made.rmdir()
    except OSError:  # a process that was killed leaves it a moment later
        return False
    return True


def _soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Held:
    """The use of a cgroup and the node's pools, from files that are held open."""

    def __init__(self, hugetlb: ControllerDirectory) -> None:
        self._files = HeldFiles(HeldDirectories())
        self._usage = HeldValue(self._files, partial(read_usage, hugetlb))
        self._pools = HeldPools("/")
        self._hugetlb = hugetlb

    def usage(self) -> HugepageUsage:
        found = self._usage.get()
        assert found == read_usage(self._hugetlb)
        (own,) = [one for one in found if one.page_size_bytes == PAGE]
        return own

    def used_on_the_node(self) -> int:
        (pool,) = [one for one in self._pools.known() or () if one.page_size_bytes == PAGE]
        return pool.total_bytes - pool.free_bytes

    def close(self) -> None:
        self._files.close()


def own_limit(usage: int, failures: int) -> HugepageUsage:
    return HugepageUsage(PAGE, PAGE, usage, failures, CgroupLevel.CONTAINER, PAGE)


def test_limit_use_and_failures_are_what_the_process_meets() -> None:
    with overcommit(), hugetlb_cgroup() as hugetlb:
        held = Held(hugetlb)
        assert held.usage() == own_limit(0, 0)
        enter = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        use = (sys.executable, "-c", USE_TWO_PAGES)
        process = subprocess.Popen(
            ["sh", "-c", enter, hugetlb.directory, *use],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"one\n"
            assert held.usage() == own_limit(PAGE, 0)
            assert held.used_on_the_node() >= PAGE
        finally:
            process.communicate(b"\n", timeout=60)
        assert process.returncode == -signal.SIGBUS
        assert held.usage() == own_limit(0, 1)
        assert all(
            one.limit_bytes is None for one in read_usage(hugetlb) if one.page_size_bytes != PAGE
        )
        held.close()
