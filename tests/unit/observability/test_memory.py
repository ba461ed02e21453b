"""The rejection of new connections for lack of memory, by the files of both cgroup versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from netutil.agent.errors import Reason, ResourceExhausted
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import Hierarchy
from netutil.agent.observability.memory import MemoryCgroup, MemoryLimit, MemoryUse, memory_cgroup

MIB = 1024 * 1024


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def v2(top: Path, used: int, **files: str) -> MemoryCgroup:
    """A container's cgroup two levels below the mount; keyword arguments are its files."""
    own = top / "pod" / "container"
    own.mkdir(parents=True, exist_ok=True)
    (own / "memory.current").write_text(f"{used}\n")
    (own / "memory.stat").write_text(f"anon {used}\ninactive_file {10 * MIB}\n")
    for name in ("max", "high"):
        (own / f"memory.{name}").write_text(files.get(name, "max") + "\n")
        (own.parent / f"memory.{name}").write_text(files.get(f"pod_{name}", "max") + "\n")
    return MemoryCgroup(2, str(own), str(top))


def v1(top: Path, used: int, limit: int) -> MemoryCgroup:
    (top / "memory.usage_in_bytes").write_text(f"{used}\n")
    (top / "memory.stat").write_text(
        f"cache 0\nhierarchical_memory_limit {limit}\ntotal_inactive_file {10 * MIB}\n"
    )
    return MemoryCgroup(1, str(top), str(top))


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"max": str(256 * MIB)}, 256 * MIB),
        ({"max": str(256 * MIB), "high": str(200 * MIB)}, 200 * MIB),
        ({"pod_max": str(128 * MIB), "max": str(256 * MIB)}, 128 * MIB),
    ],
)
def test_the_lowest_limit_above_a_v2_cgroup_counts(
    tmp_path: Path, files: dict[str, str], limit: int | None
) -> None:
    assert v2(tmp_path, 100 * MIB, **files).read() == MemoryUse(90 * MIB, limit)


def test_a_v1_cgroup_without_a_limit_has_none(tmp_path: Path) -> None:
    assert v1(tmp_path, 100 * MIB, 9223372036854771712).read() == MemoryUse(90 * MIB, None)
    assert v1(tmp_path, 100 * MIB, 256 * MIB).read() == MemoryUse(90 * MIB, 256 * MIB)


def test_connections_are_rejected_only_above_the_share(tmp_path: Path) -> None:
    clock = Clock()
    limit = MemoryLimit(v2(tmp_path, 100 * MIB, max=str(100 * MIB)), 90, clock)
    assert limit.check_capacity() is None  # 90 of 100 MiB, of which page cache does not count
    v2(tmp_path, 101 * MIB, max=str(100 * MIB))
    assert limit.check_capacity() is None  # read again in a quarter of a second
    clock.now += 0.25
    refusal = limit.check_capacity()
    assert refusal is not None and refusal.reason is Reason.AGENT_MEMORY_LOW
    with pytest.raises(ResourceExhausted):
        limit.ensure_capacity()
    v2(tmp_path, 50 * MIB, max=str(100 * MIB))
    clock.now += 0.25
    limit.ensure_capacity()


def test_unreadable_files_reject_no_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    limit = MemoryLimit(MemoryCgroup(2, str(tmp_path / "absent"), str(tmp_path)), 90, clock)
    for _ in range(3):
        clock.now += 1
        assert limit.check_capacity() is None
    assert len(caplog.records) == 1


def test_no_limit_is_known_without_a_cgroup() -> None:
    limit = MemoryLimit(None, 90)
    assert limit.use == MemoryUse(0, None)
    assert limit.check_capacity() is None


@pytest.mark.parametrize(
    ("namespace", "path"), [("", "/pod/container"), ("/pod/container", "/"), ("/pod", "/container")]
)
def test_the_agents_cgroup_is_found_in_a_private_namespace(
    namespace: str, path: str, tmp_path: Path
) -> None:
    """There /proc/self/cgroup says "/", which is not the top of what the node's mount shows."""
    v2(tmp_path, 100 * MIB, max=str(256 * MIB))
    tree = CgroupTree({"": Hierarchy(2, str(tmp_path), namespace=namespace)})
    found = memory_cgroup(tree, f"0::{path}\n")
    assert found == MemoryCgroup(2, str(tmp_path / "pod" / "container"), str(tmp_path))
    assert found.read().limit_bytes == 256 * MIB


@pytest.mark.parametrize("text", ["0::/../elsewhere\n", "0::/no/such\n", "5:cpu:/pod\n"])
def test_a_cgroup_that_the_agent_does_not_see_is_none(text: str, tmp_path: Path) -> None:
    tree = CgroupTree({"": Hierarchy(2, str(tmp_path))})
    assert memory_cgroup(tree, text) is None
