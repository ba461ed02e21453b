"""What tells that a network namespace or a cgroup changed, and what does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from netutil.agent.facts.cgroup_changes import CgroupChanges
from netutil.agent.facts.links import network_namespace
from netutil.agent.facts.network_changes import NetworkChanges, open_changes
from netutil.agent.facts.paced import PacedReader

from tests.facts.namespaces import Namespace
from tests.facts.namespaces import network_namespace as new_namespace


class Told:
    """Counts, and can be waited for."""

    def __init__(self) -> None:
        self.times = 0
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._news.set()

    async def soon(self) -> None:
        async with asyncio.timeout(10):
            await self._news.wait()
        self._news.clear()

    async def quiet(self) -> None:
        """Return once nothing was told for a while."""
        before = -1
        while before != self.times:
            before = self.times
            await asyncio.sleep(0.1)
        self._news.clear()

    async def not_soon(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await self._news.wait()


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with new_namespace() as made:
        yield made


@pytest.fixture
async def told(namespace: Namespace) -> AsyncIterator[Told]:
    told, changes = Told(), NetworkChanges()
    key, connection = open_changes(namespace.directory)
    assert key == network_namespace(namespace.directory)
    changes.join(key, told, connection)
    yield told
    changes.leave(key, told)
    assert len(changes) == 0
    assert connection.fileno() == -1


CHANGES = [
    ["link", "set", "lo", "up"],
    ["link", "add", "br0", "type", "bridge"],
    ["address", "add", "192.0.2.1/24", "dev", "lo"],
    ["address", "add", "2001:db8::1/64", "dev", "lo"],
]


@pytest.mark.root
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: " ".join(change[:2]))
async def test_links_and_addresses_are_told(
    namespace: Namespace, told: Told, change: list[str]
) -> None:
    namespace.ip(*change)
    await told.soon()


@pytest.mark.root
async def test_default_routes_are_told_and_other_routes_are_not(
    namespace: Namespace, told: Told
) -> None:
    namespace.ip("link", "set", "lo", "up")
    await told.soon()
    await told.not_soon()
    namespace.ip("route", "add", "198.51.100.0/24", "dev", "lo")
    await told.not_soon()
    for verb in ("add", "del"):
        namespace.ip("route", verb, "default", "dev", "lo")
        await told.soon()


@pytest.mark.root
async def test_source_based_routes_and_their_rules_are_told(
    namespace: Namespace, told: Told
) -> None:
    namespace.ip("link", "set", "lo", "up")
    await told.soon()
    await told.not_soon()
    for verb in ("add", "del"):
        namespace.ip("route", verb, "default", "dev", "lo", "table", "100")
        await told.soon()
        for family in ("-4", "-6"):
            namespace.ip(family, "rule", verb, "from", "all", "table", "100")
            await told.soon()


@pytest.mark.root
async def test_a_flood_is_told_at_a_bounded_rate_and_to_its_end(
    namespace: Namespace, told: Told
) -> None:
    lines = [f"address add 10.{n // 250}.{n % 250}.1/32 dev lo" for n in range(5000)]
    process = await asyncio.create_subprocess_exec(
        *("nsenter", "-t", str(namespace.pid), "-n", "ip", "-batch", "-"),
        stdin=asyncio.subprocess.PIPE,
    )
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await process.communicate("\n".join(lines).encode())
    await told.soon()
    await told.quiet()
    assert 1 <= told.times <= 2 + 55 * (loop.time() - begun)
    before = told.times
    namespace.ip("address", "del", "10.0.0.1/32", "dev", "lo")  # ENOBUFS made nobody deaf
    await told.soon()
    assert told.times > before


@pytest.mark.root
async def test_all_who_join_are_told_until_they_leave(namespace: Namespace) -> None:
    first, second, changes = Told(), Told(), NetworkChanges()
    key, connection = open_changes(namespace.directory)
    changes.join(key, first, connection)
    _, another = open_changes(namespace.directory)
    changes.join(key, second, another)
    assert another.fileno() == -1  # it was not needed
    namespace.ip("link", "set", "lo", "up")
    await first.soon()
    await second.soon()
    changes.leave(key, first)
    changes.leave(key, first)
    namespace.ip("link", "add", "br0", "type", "bridge")
    await second.soon()
    assert first.times == 1
    changes.leave(key, second)


async def test_a_write_to_a_controllers_file_is_told_and_to_others_is_not(tmp_path: Path) -> None:
    for name in ("cpuset.cpus", "cpu.max", "memory.events"):
        (tmp_path / name).write_text("0\n")
    told, changes = Told(), CgroupChanges()
    changes.join([str(tmp_path)], told)
    (tmp_path / "memory.events").write_text("1\n")
    await told.not_soon()
    for name in ("cpuset.cpus", "cpu.max"):
        (tmp_path / name).write_text("1\n")
        await told.soon()
    changes.leave([str(tmp_path)], told)
    (tmp_path / "cpuset.cpus").write_text("2\n")
    await told.not_soon()
    assert len(changes) == 0


async def test_the_sweep_finds_an_effective_set_that_nobody_wrote_here(tmp_path: Path) -> None:
    """Replaced behind the back of inotify, as the kernel does when a CPU goes offline."""
    effective = tmp_path / "cpuset.cpus.effective"
    effective.write_text("0-1\n")
    told, changes = Told(), CgroupChanges()
    changes.join([str(tmp_path)], told)
    changes.sweep()
    assert told.times == 0
    fresh = tmp_path / "fresh"
    fresh.write_text("0\n")
    fresh.replace(effective)
    changes.sweep()
    changes.sweep()
    assert told.times == 1
    effective.unlink()  # the container has ended
    changes.sweep()
    assert told.times == 2
    changes.leave([str(tmp_path)], told)


@pytest.mark.parametrize(
    "name",
    [
        *("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
        *("hugetlb.2MB.max", "hugetlb.1GB.limit_in_bytes"),
        *("cpuset.cpus.partition", "cpuset.cpus.exclusive.effective"),
    ],
)
async def test_another_limit_above_is_told_and_the_same_one_written_again_is_not(
    tmp_path: Path, name: str
) -> None:
    """The kubelet writes what stands there already into a QoS class's cgroup, for all its pods."""
    file, other = tmp_path / name, tmp_path / "cpu.shares"
    file.write_text("1\n")
    other.write_text("1024\n")
    told, changes = Told(), CgroupChanges()
    changes.join_above([str(tmp_path)], told)
    file.write_text("1\n")
    other.write_text("2\n")
    await told.not_soon()
    file.write_text("2\n")
    await told.soon()
    changes.leave([str(tmp_path)], told)
    file.write_text("3\n")
    await told.not_soon()
    assert len(changes) == 0


async def test_a_directory_is_watched_once_for_those_in_it_and_those_below(tmp_path: Path) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("max 100000\n")
    inside, below, changes = Told(), Told(), CgroupChanges()
    changes.join([str(tmp_path)], inside)
    changes.join_above([str(tmp_path)], below)
    assert len(changes) == 1
    file.write_text("50000 100000\n")
    await inside.soon()
    await below.soon()
    changes.leave([str(tmp_path)], inside)
    assert len(changes) == 1
    before = inside.times
    file.write_text("60000 100000\n")
    await below.soon()
    assert inside.times == before
    changes.leave([str(tmp_path)], below)
    assert len(changes) == 0


async def test_the_sweep_finds_another_limit_above_where_inotify_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    file.write_text("max 100000\n")
    told, changes = Told(), CgroupChanges()
    monkeypatch.setattr(changes, "_watch", lambda path: -1)
    changes.join_above([str(tmp_path)], told)
    changes.sweep()
    assert told.times == 0
    file.write_text("50000 100000\n")
    changes.sweep()
    changes.sweep()
    assert told.times == 1
    changes.leave([str(tmp_path)], told)


async def test_a_cgroup_that_is_gone_can_be_joined_and_left() -> None:
    told, changes = Told(), CgroupChanges()
    changes.join(["/nonexistent/cgroup"], told)
    changes.sweep()
    changes.leave(["/nonexistent/cgroup"], told)
    assert (told.times, len(changes)) == (0, 0)


async def test_a_descriptor_that_is_always_readable_is_read_50_times_a_second() -> None:
    reads = 0

    def read() -> None:
        nonlocal reads
        reads += 1

    ours, theirs = os.pipe()
    os.write(theirs, b".")
    reader = PacedReader(ours, read)
    await asyncio.sleep(0.5)
    reader.close()
    assert 1 <= reads <= 27
    os.close(ours)
    os.close(theirs)
