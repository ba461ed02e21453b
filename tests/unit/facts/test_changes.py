"""The events that notify of a change of a cgroup, and those that do not."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from netutil.agent.facts.cgroup_changes import CgroupChanges
from netutil.agent.facts.sysfs import ThrottledReader

from tests.support.notifications import Notifications


def nothing_open(directory: str, name: str) -> None:
    """Return what `ContainerCache.read_open` does for a container that is not held."""


async def test_only_writes_to_cpu_and_cpuset_files_notify(tmp_path: Path) -> None:
    for name in ("cpuset.cpus", "cpu.max", "memory.events"):
        (tmp_path / name).write_text("0\n")
    notifications, changes = Notifications(), CgroupChanges(nothing_open)
    changes.subscribe([str(tmp_path)], notifications)
    (tmp_path / "memory.events").write_text("1\n")
    await notifications.not_soon()
    for name in ("cpuset.cpus", "cpu.max"):
        (tmp_path / name).write_text("1\n")
        await notifications.soon()
    changes.unsubscribe([str(tmp_path)], notifications)
    (tmp_path / "cpuset.cpus").write_text("2\n")
    await notifications.not_soon()
    assert len(changes) == 0


async def test_the_sweep_finds_a_changed_effective_set(tmp_path: Path) -> None:
    """Replaced behind the back of inotify, as the kernel does when a CPU goes offline."""
    effective = tmp_path / "cpuset.cpus.effective"
    effective.write_text("0-1\n")
    notifications, changes = Notifications(), CgroupChanges(nothing_open)
    changes.subscribe([str(tmp_path)], notifications)
    changes.sweep()
    assert notifications.times == 0
    fresh = tmp_path / "fresh"
    fresh.write_text("0\n")
    fresh.replace(effective)
    changes.sweep()
    changes.sweep()
    assert notifications.times == 1
    effective.unlink()  # the container has ended
    changes.sweep()
    assert notifications.times == 2
    changes.unsubscribe([str(tmp_path)], notifications)


async def test_the_sweep_reads_held_files_open_and_others_by_path(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus.effective").write_text("by path")
    held: dict[tuple[str, str], bytes] = {(str(tmp_path), "cpuset.cpus.effective"): b"0-1"}
    notifications, changes = Notifications(), CgroupChanges(lambda *file: held.get(file))
    changes.subscribe([str(tmp_path)], notifications)
    changes.sweep()
    assert notifications.times == 0
    held[str(tmp_path), "cpuset.cpus.effective"] = b"0"
    changes.sweep()
    changes.sweep()
    assert notifications.times == 1
    held.clear()  # let go of, or removed
    changes.sweep()
    changes.sweep()
    assert notifications.times == 2
    changes.unsubscribe([str(tmp_path)], notifications)


async def test_a_held_file_that_cannot_be_read_is_read_by_path(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus.effective").write_text("0")

    def fail(directory: str, name: str) -> bytes:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    notifications, changes = Notifications(), CgroupChanges(fail)
    changes.subscribe([str(tmp_path)], notifications)
    (tmp_path / "replaced").write_text("1")
    (tmp_path / "replaced").replace(tmp_path / "cpuset.cpus.effective")
    changes.sweep()
    assert notifications.times == 1
    changes.unsubscribe([str(tmp_path)], notifications)


@pytest.mark.parametrize(
    "name",
    [
        *("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        *("hugetlb.2MB.max", "hugetlb.1GB.limit_in_bytes"),
        *("cpuset.cpus.partition", "cpuset.cpus.exclusive.effective"),
    ],
)
async def test_a_limit_above_notifies_only_if_its_value_differs(tmp_path: Path, name: str) -> None:
    """The kubelet rewrites the same value in a QoS class's cgroup, for all its pods."""
    file, other = tmp_path / name, tmp_path / "cpu.shares"
    file.write_text("1\n")
    other.write_text("1024\n")
    notifications, changes = Notifications(), CgroupChanges(nothing_open)
    changes.subscribe_above([str(tmp_path)], notifications)
    file.write_text("1\n")
    other.write_text("2\n")
    await notifications.not_soon()
    file.write_text("2\n")
    await notifications.soon()
    changes.unsubscribe([str(tmp_path)], notifications)
    file.write_text("3\n")
    await notifications.not_soon()
    assert len(changes) == 0


async def test_a_directory_is_watched_once_for_all_in_and_below_it(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("max 100000\n")
    inside, below = Notifications(), Notifications()
    changes = CgroupChanges(nothing_open)
    changes.subscribe([str(tmp_path)], inside)
    changes.subscribe_above([str(tmp_path)], below)
    assert len(changes) == 1
    file.write_text("50000 100000\n")
    await inside.soon()
    await below.soon()
    changes.unsubscribe([str(tmp_path)], inside)
    assert len(changes) == 1
    before = inside.times
    file.write_text("60000 100000\n")
    await below.soon()
    assert inside.times == before
    changes.unsubscribe([str(tmp_path)], below)
    assert len(changes) == 0


async def test_the_sweep_finds_a_new_limit_above_without_inotify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("max 100000\n")
    notifications, changes = Notifications(), CgroupChanges(nothing_open)
    monkeypatch.setattr(changes, "_watch", lambda path: -1)
    changes.subscribe_above([str(tmp_path)], notifications)
    changes.sweep()
    assert notifications.times == 0
    file.write_text("50000 100000\n")
    changes.sweep()
    changes.sweep()
    assert notifications.times == 1
    changes.unsubscribe([str(tmp_path)], notifications)


async def test_a_removed_cgroup_accepts_subscriptions() -> None:
    notifications, changes = Notifications(), CgroupChanges(nothing_open)
    changes.subscribe(["/nonexistent/cgroup"], notifications)
    changes.sweep()
    changes.unsubscribe(["/nonexistent/cgroup"], notifications)
    assert (notifications.times, len(changes)) == (0, 0)


async def test_a_readable_descriptor_is_read_50_times_a_second() -> None:
    reads = 0

    def read() -> None:
        nonlocal reads
        reads += 1

    ours, theirs = os.pipe()
    os.write(theirs, b".")
    reader = ThrottledReader(ours, read)
    await asyncio.sleep(0.5)
    reader.close()
    assert 1 <= reads <= 27
    os.close(ours)
    os.close(theirs)
