"""Huge pages: the node's pools, a container's cgroup, and what a spec asks for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.cgroup_levels import CgroupLevel, ControllerDirectory
from netutil.agent.facts.hugepages import (
    ContainerHugepages,
    HugepagePool,
    HugepageUsage,
    NumaHugepages,
    asked,
    read_pools,
    read_usage,
)
from netutil.agent.facts.sysfs import BY_PATH

from tests.support.nodes.sriov_node import build_sriov_node, write

KIB, MIB, GIB = 2**10, 2**20, 2**30
# Of a kernel with pages of 4 KiB: PAGE_COUNTER_MAX, rounded down to whole huge pages.
LARGEST = 0x7FFFFFFFFFFFF000  # as Linux 6.18 shows it, not rounded
NO_LIMIT_2MB, NO_LIMIT_1GB = 0x7FFFFFFFFFE00000, 0x7FFFFFFFC0000000


@pytest.fixture
def root(tmp_path: Path) -> str:
    return build_sriov_node(tmp_path)


def at(version: int, directory: Path) -> ControllerDirectory:
    """A cgroup with none above it."""
    return ControllerDirectory(version, str(directory), str(directory))


def cgroup_v1(directory: Path, size: str, *, limit: int, usage: int, failures: int) -> None:
    write(directory / f"hugetlb.{size}.limit_in_bytes", str(limit))
    write(directory / f"hugetlb.{size}.usage_in_bytes", str(usage))
    write(directory / f"hugetlb.{size}.max_usage_in_bytes", str(usage))
    write(directory / f"hugetlb.{size}.failcnt", str(failures))
    write(directory / f"hugetlb.{size}.rsvd.limit_in_bytes", str(limit))
    write(directory / f"hugetlb.{size}.rsvd.usage_in_bytes", "77")


def cgroup_v2(directory: Path, size: str, *, limit: str, usage: int, failures: int) -> None:
    write(directory / f"hugetlb.{size}.max", limit)
    write(directory / f"hugetlb.{size}.current", str(usage))
    write(directory / f"hugetlb.{size}.events", f"max {failures}")
    write(directory / f"hugetlb.{size}.rsvd.max", limit)
    write(directory / f"hugetlb.{size}.rsvd.current", "77")
    write(directory / f"hugetlb.{size}.numa_stat", f"total={usage} N0={usage}")


def test_the_nodes_pools_are_in_bytes_per_size_and_numa_node(root: str) -> None:
    assert read_pools(root) == (
        HugepagePool(
            page_size_bytes=2 * MIB,
            total_bytes=1536 * MIB,
            free_bytes=1512 * MIB,
            reserved_bytes=20 * MIB,
            surplus_bytes=4 * MIB,
            numa_nodes=(
                NumaHugepages(0, 1024 * MIB, 1000 * MIB, 0),
                NumaHugepages(1, 512 * MIB, 512 * MIB, 4 * MIB),
            ),
        ),
        HugepagePool(
            page_size_bytes=GIB,
            total_bytes=4 * GIB,
            free_bytes=GIB,
            reserved_bytes=GIB,
            surplus_bytes=0,
            numa_nodes=(NumaHugepages(0, 4 * GIB, GIB, 0), NumaHugepages(1, 0, 0, 0)),
        ),
    )


def test_a_kernel_without_huge_pages_has_no_pools(root: str) -> None:
    shutil.rmtree(Path(root, "sys/kernel/mm/hugepages"))
    assert read_pools(root) == ()


def test_a_kernel_without_numa_has_pools_without_nodes(root: str) -> None:
    shutil.rmtree(Path(root, "sys/devices/system/node"))
    assert [pool.numa_nodes for pool in read_pools(root)] == [(), ()]


def test_nodes_and_sizes_are_in_the_order_of_their_numbers(root: str) -> None:
    name = "hugepages-64kB"
    write(Path(root, f"sys/kernel/mm/hugepages/{name}/nr_hugepages"), "3")
    for node in (10, 2):
        folder = Path(root, f"sys/devices/system/node/node{node}/hugepages/{name}")
        write(folder / "nr_hugepages", "1")
    smallest = read_pools(root)[0]
    assert (smallest.page_size_bytes, smallest.total_bytes) == (64 * KIB, 192 * KIB)
    assert [part.numa_node for part in smallest.numa_nodes] == [2, 10]


class CountedFiles:
    """Files by path, and which of them were read."""

    def __init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, directory: str, name: str) -> bytes:
        self.read_names.append(f"{directory}/{name}")
        return BY_PATH.read(directory, name)

    def names(self, directory: str) -> list[str]:
        return BY_PATH.names(directory)

    def subdirectories(self, directory: str) -> list[str]:
        return BY_PATH.subdirectories(directory)

    def is_there(self, directory: str) -> bool:
        return BY_PATH.is_there(directory)


def test_a_pool_without_pages_costs_one_read(root: str) -> None:
    name = "hugepages-64kB"
    pool = Path(root, f"sys/kernel/mm/hugepages/{name}")
    part = Path(root, f"sys/devices/system/node/node1/hugepages/{name}")
    for folder in (pool, part):
        write(folder / "nr_hugepages", "0")
        for other in ("free", "resv", "surplus"):
            write(folder / f"{other}_hugepages", "2")
    files = CountedFiles()
    expected = HugepagePool(64 * KIB, 0, 0, 0, 0, (NumaHugepages(1, 0, 0, 0),))
    assert read_pools(root, files)[0] == expected
    read = [one for one in files.read_names if name in one]
    assert read and all(one.endswith("/nr_hugepages") for one in read)
    for folder in (pool, part):
        write(folder / "nr_hugepages", "3")
    part_now = NumaHugepages(1, 192 * KIB, 128 * KIB, 128 * KIB)
    sizes = (192 * KIB, 128 * KIB, 128 * KIB, 128 * KIB)
    assert read_pools(root, files)[0] == HugepagePool(64 * KIB, *sizes, (part_now,))


@pytest.mark.xdist_group("hugepages")
def test_this_machines_pools_are_what_its_kernel_says() -> None:
    text = Path("/proc/meminfo").read_text()
    default = dict(line.split(":") for line in text.strip().split("\n"))
    if "Hugepagesize" not in default:
        pytest.skip("this kernel has no huge pages")
    size = int(default["Hugepagesize"].split()[0]) * KIB
    (pool,) = [one for one in read_pools("/") if one.page_size_bytes == size]
    assert pool.total_bytes == int(default["HugePages_Total"]) * size
    nodes = [name for name in os.listdir("/sys/devices/system/node") if name[4:].isdigit()]
    assert len(pool.numa_nodes) == len(nodes)


def test_cgroup_v1_says_limit_usage_and_failures(tmp_path: Path) -> None:
    cgroup_v1(tmp_path, "2MB", limit=64 * MIB, usage=8 * MIB, failures=3)
    cgroup_v1(tmp_path, "1GB", limit=0, usage=0, failures=0)
    assert read_usage(at(1, tmp_path)) == (
        HugepageUsage(2 * MIB, 64 * MIB, 8 * MIB, 3, CgroupLevel.CONTAINER, 64 * MIB),
        HugepageUsage(GIB, 0, 0, 0, CgroupLevel.CONTAINER, 0),
    )


def test_the_largest_number_of_cgroup_v1_is_no_limit(tmp_path: Path) -> None:
    cgroup_v1(tmp_path, "2MB", limit=NO_LIMIT_2MB, usage=0, failures=0)
    cgroup_v1(tmp_path, "1GB", limit=NO_LIMIT_1GB, usage=0, failures=0)
    found = read_usage(at(1, tmp_path))
    assert [one.limit_bytes for one in found] == [None, None]


def test_one_page_below_the_largest_number_is_a_limit(tmp_path: Path) -> None:
    cgroup_v1(tmp_path, "2MB", limit=NO_LIMIT_2MB - 2 * MIB, usage=0, failures=0)
    (found,) = read_usage(at(1, tmp_path))
    assert found.limit_bytes == NO_LIMIT_2MB - 2 * MIB


def test_cgroup_v2_says_limit_usage_and_failures(tmp_path: Path) -> None:
    cgroup_v2(tmp_path, "2MB", limit=str(64 * MIB), usage=8 * MIB, failures=5)
    cgroup_v2(tmp_path, "64KB", limit="max", usage=64 * KIB, failures=0)
    assert read_usage(at(2, tmp_path)) == (
        HugepageUsage(64 * KIB, None, 64 * KIB, 0),
        HugepageUsage(2 * MIB, 64 * MIB, 8 * MIB, 5, CgroupLevel.CONTAINER, 64 * MIB),
    )


def test_the_largest_number_of_cgroup_v2_is_no_limit(tmp_path: Path) -> None:
    for limit in (LARGEST, NO_LIMIT_1GB):
        cgroup_v2(tmp_path, "1GB", limit=str(limit), usage=0, failures=0)
        (found,) = read_usage(at(2, tmp_path))
        assert found.limit_bytes is None
    cgroup_v2(tmp_path, "1GB", limit=str(NO_LIMIT_1GB - GIB), usage=0, failures=0)
    (found,) = read_usage(at(2, tmp_path))
    assert found.limit_bytes == NO_LIMIT_1GB - GIB


POD = "kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
CONTAINER = f"{POD}/{'4c1f' * 16}"


def limit_v1(directory: Path, limit: int | None) -> None:
    cgroup_v1(directory, "2MB", limit=NO_LIMIT_2MB if limit is None else limit, usage=0, failures=0)


def limit_v2(directory: Path, limit: int | None) -> None:
    text = "max" if limit is None else str(limit)
    cgroup_v2(directory, "2MB", limit=text, usage=0, failures=0)


@pytest.mark.parametrize(("version", "limit"), [(1, limit_v1), (2, limit_v2)])
@pytest.mark.parametrize(
    ("own", "pod", "kubepods", "smallest", "level"),
    [
        (None, 4 * MIB, None, 4 * MIB, CgroupLevel.POD),
        (64 * MIB, 4 * MIB, 2 * MIB, 2 * MIB, CgroupLevel.KUBEPODS),
        (4 * MIB, 4 * MIB, None, 4 * MIB, CgroupLevel.CONTAINER),
        (2 * MIB, 0, 4 * MIB, 0, CgroupLevel.POD),
        (None, None, None, None, None),
    ],
)
def test_the_smallest_limit_up_to_the_root_names_its_cgroup(
    tmp_path: Path,
    version: int,
    limit: Callable[[Path, int | None], None],
    own: int | None,
    pod: int | None,
    kubepods: int | None,
    smallest: int | None,
    level: CgroupLevel | None,
) -> None:
    for place, amount in ((CONTAINER, own), (POD, pod), ("kubepods", kubepods)):
        limit(tmp_path / place, amount)
    top = str(tmp_path)
    directory = ControllerDirectory(version, f"{top}/{CONTAINER}", top, f"{top}/{POD}")
    assert read_usage(directory) == (HugepageUsage(2 * MIB, smallest, 0, 0, level, own),)


@pytest.mark.parametrize(("version", "limit"), [(1, limit_v1), (2, limit_v2)])
@pytest.mark.parametrize(
    ("pod", "kubepods", "smallest", "level"),
    [
        (4 * MIB, None, 4 * MIB, CgroupLevel.POD),
        (4 * MIB, 2 * MIB, 2 * MIB, CgroupLevel.KUBEPODS),
        (None, None, None, None),
    ],
)
def test_a_limit_of_the_pods_own_cgroup_is_the_pods(
    tmp_path: Path,
    version: int,
    limit: Callable[[Path, int | None], None],
    pod: int | None,
    kubepods: int | None,
    smallest: int | None,
    level: CgroupLevel | None,
) -> None:
    for place, amount in ((POD, pod), ("kubepods", kubepods)):
        limit(tmp_path / place, amount)
    directory = ControllerDirectory(
        version, f"{tmp_path}/{POD}", str(tmp_path), f"{tmp_path}/{POD}"
    )
    assert read_usage(directory) == (HugepageUsage(2 * MIB, smallest, 0, 0, level, None),)


def test_usage_is_unknown_without_the_controller(tmp_path: Path) -> None:
    write(tmp_path / "cpu.max", "max 100000")
    assert read_usage(None) == ()
    assert read_usage(at(2, tmp_path)) == ()
    assert read_usage(at(1, tmp_path / "absent")) == ()


def test_a_spec_asks_per_container_and_page_size() -> None:
    both = {"hugepages-1Gi": "2Gi", "hugepages-2Mi": "128Mi", "cpu": "2"}
    found = asked([("setup", {"hugepages-2Mi": "2Mi"}, {}), ("app", both, both)], pod="shop/web")
    assert found == (
        ContainerHugepages("setup", 2 * MIB, 2 * MIB, 0),
        ContainerHugepages("app", 2 * MIB, 128 * MIB, 128 * MIB),
        ContainerHugepages("app", GIB, 2 * GIB, 2 * GIB),
    )


def test_a_limit_alone_is_the_request_as_well() -> None:
    (found,) = asked([("app", {}, {"hugepages-2Mi": "4Mi"})], pod="shop/web")
    assert (found.request_bytes, found.limit_bytes) == (4 * MIB, 4 * MIB)


def test_nothing_is_not_asked_for() -> None:
    assert asked([("app", {"hugepages-2Mi": "0"}, {"hugepages-2Mi": 0})], pod="shop/web") == ()


@pytest.mark.parametrize("amounts", [{"hugepages-2Mi": "many"}, {"hugepages-": "2Mi"}])
def test_an_invalid_quantity_is_refused_with_its_container(amounts: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        asked([("app", amounts, {})], pod="shop/web")
    assert refused.value.reason is Reason.QUANTITY_MALFORMED
    (name,) = amounts
    assert refused.value.read == f"resources of container app of pod shop/web: {name}"


def test_a_name_without_a_page_size_is_reported_whole() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        asked([("app", {"hugepages-foo": "2Mi"}, {})], pod="shop/web")
    assert refused.value.message == "The resource 'hugepages-foo' names no page size in bytes."
    assert refused.value.read.endswith(": hugepages-foo")
