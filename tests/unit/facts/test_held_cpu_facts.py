"""CPU facts from held files, against the same facts read by path, after each of many changes."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from netutil.agent.facts.cpu import CpuDirectories, read_cpu
from netutil.agent.facts.cpu_partition import read_partition
from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue

from tests.support.lab.cgroups import find_hierarchies
from tests.unit.facts.test_cpu import CONTAINER, POD, V1, Layout, v1, v2
from tests.unit.facts.test_cpu_partition import MEMBERS, NOT_EXCLUSIVE

CHANGES = 300
ABOVE = (CONTAINER, POD, "kubepods/burstable", "kubepods", ".")
TEXTS: Mapping[str, tuple[str, ...]] = {
    "cpuset.cpus": ("\n", "0\n", "2-3\n", "0-1023\n"),
    "cpuset.cpus.effective": ("0\n", "2-3\n", "2-3,6\n"),
    "cpuset.effective_cpus": ("0\n", "2-3\n", "2-3,6\n"),
    "cpu.max": ("max 100000\n", "50000 100000\n", "250000 100000\n", "1000 1000\n"),
    "cpu.weight": ("1\n", "100\n", "10000\n"),
    "cpu.shares": ("2\n", "1024\n"),
    "cpu.cfs_quota_us": ("-1\n", "50000\n", "250000\n"),
    "cpu.cfs_period_us": ("100000\n", "50000\n"),
    "cpuset.cpus.partition": (
        "member\n",
        "root\n",
        "isolated\n",
        "isolated invalid (Cpu list in cpuset.cpus not exclusive)\n",
    ),
    "cpuset.cpus.exclusive": ("\n", "2-3\n"),
    "cpuset.cpus.exclusive.effective": ("\n", "2-3\n", "3\n"),
    "cpuset.cpu_exclusive": ("0\n", "1\n"),
}


def held_and_direct(directories: CpuDirectories, chance: random.Random) -> None:
    """Change files of the tree at random, and compare after each change."""
    assert directories.cpu is not None
    tops = {Path(directories.cpuset_top), Path(directories.cpu.top)}
    places = [top / place for top in tops for place in ABOVE]
    of_version = {1: ("effective_cpus", "cfs", "shares", "cpu_exclusive"), 2: ("effective", "max")}
    others = of_version[3 - directories.cgroup_version]
    names = [name for name in TEXTS if not name.endswith(others)]
    files = HeldFiles(HeldDirectories())
    cpu = HeldValue(files, lambda found: read_cpu(directories, found))
    partition = HeldValue(files, lambda found: read_partition(directories, found))
    for _ in range(CHANGES):
        name = chance.choice(names)
        place = chance.choice(places)
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(chance.choice(TEXTS[name]))
        assert cpu.get() == read_cpu(directories)
        assert partition.get() == read_partition(directories)
    files.close()


@pytest.mark.parametrize("layout", [v1, v2])
@pytest.mark.parametrize("seed", range(3))
def test_held_facts_are_those_of_a_read_by_path(layout: Layout, seed: int, tmp_path: Path) -> None:
    """Also where a file appears that was not there, as when a controller is turned on."""
    changes = {**MEMBERS, **NOT_EXCLUSIVE} if layout is v2 else {}
    directories = layout(tmp_path, changes)
    held_and_direct(directories, random.Random(seed))  # noqa: S311 - not a secret


def test_a_steady_container_costs_one_read_of_each_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = v1(tmp_path)
    files = HeldFiles(HeldDirectories())
    value = HeldValue(files, lambda found: read_cpu(directories, found))
    before = value.get()
    reads: list[int] = []
    real = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        reads.append(descriptor)
        return real(descriptor, size, offset)

    def refused(*_: object, **__: object) -> int:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", counted)
        patched.setattr(os, "open", refused)
        assert value.get() is before
    assert len(reads) == len(set(reads)) == len([name for name in V1 if CONTAINER in name])
    files.close()


@pytest.mark.root
def test_the_kernel_s_own_flag_of_a_cpuset_is_that_of_the_moment() -> None:
    found = [one.directory for one in find_hierarchies() if "cpuset" in one.controllers]
    if os.geteuid() != 0 or not found:
        pytest.skip("needs root, and cgroup v1's cpuset hierarchy")
    made = found[0] / f"netutil-held-{os.getpid()}"
    made.mkdir()
    try:
        directories = CpuDirectories(1, str(made), str(found[0]), None)
        files = HeldFiles(HeldDirectories())
        value = HeldValue(files, lambda found: read_partition(directories, found))
        for number in range(100):
            # A set without CPUs may be exclusive beside any other.
            (made / "cpuset.cpu_exclusive").write_text(str(number % 2))
            assert value.get().cpu_exclusive is bool(number % 2)
        files.close()
    finally:
        made.rmdir()
