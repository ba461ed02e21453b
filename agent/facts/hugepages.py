"""Huge pages: pools of the node, limits and usage of a container's cgroup, requests of its spec.

Sources: the kernel's admin-guide/mm/hugetlbpage.rst (pools), cgroup-v1/hugetlb.rst and
cgroup-v2.rst, section "HugeTLB"; Kubernetes, "Manage HugePages" (hugepages-<size>).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import msgspec
from netutil.agent.errors import FailedPrecondition, is_resource_exhaustion
from netutil.agent.facts.cgroup_levels import CgroupLevel, ControllerDirectory, of_container
from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue
from netutil.agent.facts.sysfs import BY_PATH, Files, names_if_there, text_if_there
from netutil.agent.parsers.quantity import parse_bytes

_RESOURCE = "hugepages-"
_POOL = re.compile(r"hugepages-([0-9]{1,12})kB")
_NODE = re.compile(r"node([0-9]{1,5})")
_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30}
_USAGE = re.compile(
    r"hugetlb\.(?P<size>(?P<number>[0-9]{1,6})(?P<unit>[KMG]B))\.(?P<file>current|usage_in_bytes)"
)
_FILES = {1: "usage_in_bytes", 2: "current"}
_LIMITS = {1: "limit_in_bytes", 2: "max"}
_MAX_VALUE = 2**63 - 1
_MAX_SHOWN = 64
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV)


class NumaHugepages(msgspec.Struct, frozen=True):
    """One NUMA node's part of a pool."""

    numa_node: int
    total_bytes: int
    free_bytes: int
    surplus_bytes: int


class HugepagePool(msgspec.Struct, frozen=True):
    """The node's pages of one size.

    `reserved_bytes` are promised to mappings but not yet faulted in,
    `surplus_bytes` are beyond the configured size for as long as they are used.
    """

    page_size_bytes: int
    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    surplus_bytes: int
    numa_nodes: tuple[NumaHugepages, ...]


class HugepageUsage(msgspec.Struct, frozen=True):
    """What a container has and uses of one page size. None is no limit.

    `limit_bytes` is the smallest limit of the container's cgroup and all above it, `limit_level`
    says where it is: the level nearest to the container if several have the same.
    `container_limit_bytes` is that of the container's own cgroup; `usage_bytes` and `failures`
    (how often its own limit was met) are the container's too. For a process in the pod's own
    cgroup, which is in no container, `container_limit_bytes` is None, and the others are the pod's.
    """

    page_size_bytes: int
    limit_bytes: int | None
    usage_bytes: int
    failures: int
    limit_level: CgroupLevel | None = None
    container_limit_bytes: int | None = None


class ContainerHugepages(msgspec.Struct, frozen=True):
    """What a container's spec asks of one page size, and what was granted; None: not said.

    `kind` is "container", "init", or "sidecar" for an init container that goes on running.
    """

    container_name: str
    page_size_bytes: int
    request_bytes: int
    limit_bytes: int
    granted_request_bytes: int | None = None
    granted_limit_bytes: int | None = None
    kind: str = "container"


class PodHugepages(msgspec.Struct, frozen=True):
    """What a pod's spec asks of one page size for all its containers together (KEP-2837)."""

    page_size_bytes: int
    request_bytes: int
    limit_bytes: int
    granted_request_bytes: int | None = None
    granted_limit_bytes: int | None = None


def read_pools(host_root: str, files: Files = BY_PATH) -> tuple[HugepagePool, ...]:
    """Return the node's pools, the smallest pages first; () if the kernel has none.

    Files: /sys/kernel/mm/hugepages/hugepages-<size>kB/{nr,free,resv,surplus}_hugepages, and
    the same but resv in /sys/devices/system/node/node<n>/hugepages, by NUMA node. The files are
    counters without a lock (mm/hugetlb_sysfs.c). Only nr is read while that is 0: it counts all
    pages, free and surplus ones too, and reserved ones are free (`gather_surplus_pages` in
    mm/hugetlb.c). Raises OSError if one cannot be read.
    """
    kernel = f"{host_root.rstrip('/')}/sys/kernel/mm/hugepages"
    system = f"{host_root.rstrip('/')}/sys/devices/system/node"
    nodes = sorted(
        int(match[1]) for name in _subdirectories(files, system) if (match := _NODE.fullmatch(name))
    )
    pools = [
        _pool(files, f"{kernel}/{name}", int(match[1]) * 1024, _numa(files, system, nodes, name))
        for name in _subdirectories(files, kernel)
        if (match := _POOL.fullmatch(name))
    ]
    return tuple(sorted(pools, key=lambda pool: pool.page_size_bytes))


_Part = tuple[int, int, int, int]
"""A NUMA node, and its pages of one size: all, free ones and surplus ones."""


def _numa(files: Files, system: str, nodes: Iterable[int], name: str) -> tuple[_Part, ...]:
    """Return the NUMA nodes' parts of a pool; a node without memory has none."""
    parts = []
    for node in nodes:
        part = f"{system}/node{node}/hugepages/{name}"
        total = _text(files, part, "nr_hugepages")
        if total is None:
            continue
        if not int(total):
            parts.append((node, 0, 0, 0))
            continue
        free, surplus = _pages(files, part, "free"), _pages(files, part, "surplus")
        parts.append((node, int(total), free, surplus))
    return tuple(parts)


def _pool(files: Files, directory: str, size: int, parts: Iterable[_Part]) -> HugepagePool:
    total = _pages(files, directory, "nr")
    return HugepagePool(
        page_size_bytes=size,
        total_bytes=total * size,
        free_bytes=_pages(files, directory, "free") * size if total else 0,
        reserved_bytes=_pages(files, directory, "resv") * size if total else 0,
        surplus_bytes=_pages(files, directory, "surplus") * size if total else 0,
        numa_nodes=tuple(
            NumaHugepages(node, total * size, free * size, surplus * size)
            for node, total, free, surplus in parts
        ),
    )


def read_usage(
    hugetlb: ControllerDirectory | None, files: Files = BY_PATH
) -> tuple[HugepageUsage, ...]:
    """Return one entry for each page size, the smallest first.

    () if there is no such hierarchy, its controller is off, or the cgroup is removed. Files:
    hugetlb.<size>.{limit_in_bytes,usage_in_bytes,failcnt} on cgroup v1,
    hugetlb.<size>.{max,current,events} on v2, and the limits of each cgroup above: counters
    without a lock (mm/hugetlb_cgroup.c).
    Raises OSError if one cannot be read.
    """
    if hugetlb is None:
        return ()
    found = []
    for name in names_if_there(hugetlb.directory, _ABSENT, files):
        match = _USAGE.fullmatch(name)
        if match is None or match["file"] != _FILES[hugetlb.cgroup_version]:
            continue
        usage = _text(files, hugetlb.directory, name)
        if usage is None:
            continue  # the cgroup ended meanwhile
        size = int(match["number"]) * _UNITS[match["unit"]]
        prefix = f"hugetlb.{match['size']}"
        limit_name = f"{prefix}.{_LIMITS[hugetlb.cgroup_version]}"
        limits = [
            (level, _limit(files, directory, limit_name, size))
            for level, directory in hugetlb.levels
        ]
        given = [(limit, level) for level, limit in limits if limit is not None]
        # `min` returns the first of equal ones, which is the nearest to the container.
        smallest = min(given, key=lambda one: one[0], default=(None, None))
        found.append(
            HugepageUsage(
                page_size_bytes=size,
                limit_bytes=smallest[0],
                usage_bytes=int(usage),
                failures=_failures(files, hugetlb, prefix),
                limit_level=smallest[1],
                container_limit_bytes=of_container(hugetlb.levels, limits[0][1]),
            )
        )
    # Files of a cgroup that goes meanwhile are missing, as if it had no limit.
    if not files.is_there(hugetlb.directory):
        return ()
    return tuple(sorted(found, key=lambda usage: usage.page_size_bytes))


class HeldPools:
    """The node's pools, their files held open. Used on one thread.

    A machine with very many NUMA nodes has more files than are held: `MAX_DESCRIPTORS`.
    """

    MAX_DESCRIPTORS = 256

    def __init__(self, host_root: str) -> None:
        self._directories = HeldDirectories()
        self._files = HeldFiles(self._directories)
        self._pools = HeldValue(self._files, partial(read_pools, host_root))
        self._are_too_many = False

    def known(self) -> tuple[HugepagePool, ...] | None:
        """Return the pools as of now; None where they are to be read by path, off the loop.

        Raises OSError if one cannot be read.
        """
        if self._are_too_many:
            return None
        try:
            pools = self._pools.get()
        except OSError as error:
            self._files.close()
            if is_resource_exhaustion(error):
                return None
            raise
        if self._directories.descriptors > self.MAX_DESCRIPTORS:
            self._are_too_many = True
            self._files.close()
        return pools


Amounts = Mapping[str, object]
"""Quantities by the resource's name."""
Both = tuple[Amounts, Amounts]
"""Requests and limits."""


def asked(
    containers: Iterable[tuple[str, Amounts, Amounts]],
    *,
    pod: str,
    granted: Mapping[str, Both] | None = None,
) -> tuple[ContainerHugepages, ...]:
    """Return what containers, given as (name, requests, limits), ask for, and what was granted.

    In their order, then by page size; nothing for an amount of 0. Where only
    the limit is set, it is the request as well, as the API server defaults it. `pod` names the
    pod for errors, `granted` is by a container's name. Raises `FailedPrecondition` for what is no
    quantity.
    """
    return tuple(
        ContainerHugepages(name, *amounts)
        for name, requests, limits in containers
        for amounts in _each_size(
            (requests, limits),
            (granted or {}).get(name),
            f"resources of container {name} of pod {pod}",
        )
    )


def asked_together(wanted: Both, granted: Both | None, *, pod: str) -> tuple[PodHugepages, ...]:
    """Return what a pod asks for all its containers together. Otherwise as `asked`."""
    return tuple(
        PodHugepages(*amounts) for amounts in _each_size(wanted, granted, f"resources of pod {pod}")
    )


def _each_size(
    wanted: Both, granted: Both | None, where: str
) -> Iterator[tuple[int, int, int, int | None, int | None]]:
    """Yield page size, request, limit, and the request and the limit that were granted."""
    requests, limits = wanted
    names = {one for one in (*requests, *limits) if one.startswith(_RESOURCE)}
    sizes = [(_page_size(one, where), one) for one in names]
    for size, resource in sorted(sizes):
        read = f"{where}: {resource}"
        limit = parse_bytes(limits.get(resource), read=read)
        request = parse_bytes(requests.get(resource, limits.get(resource)), read=read)
        if request or limit:
            given: list[int | None] = [
                parse_bytes(side[resource], read=read) if resource in side else None
                for side in granted or ({}, {})
            ]
            yield size, request, limit, given[0], given[1]


def _page_size(resource: str, where: str) -> int:
    """Return the page size in bytes of a resource's name. Raises `FailedPrecondition`."""
    try:
        return parse_bytes(resource.removeprefix(_RESOURCE), read=f"{where}: {resource}")
    except FailedPrecondition as error:
        raise FailedPrecondition(
            error.reason,
            f"The resource {resource[:_MAX_SHOWN]!r} names no page size in bytes.",
            read=error.read,
            advice="Name it as Kubernetes does, for example hugepages-2Mi or hugepages-1Gi.",
        ) from None


def _limit(files: Files, directory: str, name: str, size: int) -> int | None:
    """Return the limit of one cgroup; None for none, as of the root of cgroup v2, with no file."""
    limit = _text(files, directory, name) or "max"
    return None if limit == "max" else _if_any(int(limit), size)


def _failures(files: Files, hugetlb: ControllerDirectory, prefix: str) -> int:
    if hugetlb.cgroup_version == 1:
        return int(_text(files, hugetlb.directory, f"{prefix}.failcnt") or 0)
    events = (_text(files, hugetlb.directory, f"{prefix}.events") or "").split("\n")
    return next((int(line[4:]) for line in events if line.startswith("max ")), 0)


def _if_any(limit: int, size: int) -> int | None:
    """Return a limit, None for "no limit": the largest number of pages, whole huge ones or not.

    Linux 6.18 shows 9223372036854771712 in hugetlb.<size>.max too where no limit is set.
    """
    return limit if limit < _MAX_VALUE // size * size else None


def _pages(files: Files, directory: str, name: str) -> int:
    return int(_text(files, directory, f"{name}_hugepages") or 0)


def _subdirectories(files: Files, directory: str) -> list[str]:
    try:
        return files.subdirectories(directory)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise


def _text(files: Files, directory: str, name: str) -> str | None:
    """Return the file's text, stripped; None if it, or its cgroup, is not there."""
    return text_if_there(directory, name, _ABSENT, files)
