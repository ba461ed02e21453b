"""Which cgroup limits a DPDK program: that of its container, or one above it. Pure.

A limit above is shared and does not depend on the container's resources, so each message about a
limit names the cgroup, and its advice addresses the owner of the limit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from netutil.client.errors import NotFound
from netutil.client.models.core import CPU, CgroupLevel
from netutil.client.models.devices import HugepageUsage
from netutil.client.text import level_name

_OF_THE_CONTAINER = (None, CgroupLevel.CONTAINER)
"""An agent older than the levels reports the container's own limits only."""


def throttled(cpu: CPU, cpus: Collection[int]) -> Iterator[str]:
    """Warn of a CPU quota that stops polling threads, which never sleep, in each period."""
    if cpu.quota_cores is None or cpu.quota_cores >= len(cpus):
        return
    unit = "CPU" if cpu.quota_cores == 1 else "CPUs"
    threads = "1 polling thread" if len(cpus) == 1 else f"{len(cpus)} polling threads"
    match cpu.quota_level:
        case None | CgroupLevel.CONTAINER:
            remedy = "give the container as many CPUs as it polls on, or no CPU limit"
        case CgroupLevel.POD:
            remedy = "give the pod as many CPUs as its containers use together, or no CPU limit"
        case level:
            remedy = _ask_for(level)
    limit = "" if cpu.quota_level in _OF_THE_CONTAINER else f", the limit of {_cgroup(cpu)},"
    quota = f"a CPU quota of {cpu.quota_cores:g} {unit}{limit}"
    yield f"{quota} stops {threads} in each period: {remedy}"


def allows_none(size: int, usage: Mapping[int, HugepageUsage]) -> bool:
    """Whether a hugetlb cgroup, the container's or one above it, has a limit of 0."""
    return size in usage and usage[size].limit_bytes == 0


def none_allowed(container: str, found: HugepageUsage, what: str) -> NotFound:
    """The error for huge pages, `what` of them, that a hugetlb cgroup does not allow."""
    level = found.limit_level
    holder = _hugetlb_cgroup(level)
    remedy = None
    if level is CgroupLevel.POD:
        remedy = "raise the pod's limits of huge pages: spec.resources, or those of its containers"
    elif level not in _OF_THE_CONTAINER:
        remedy = _ask_for(level)
    return no_hugepages(container, f"{holder} allows none{what}", remedy)


def lowered(limits: Mapping[int, int], usage: Mapping[int, HugepageUsage]) -> str:
    """A remark for the source of an argument if a hugetlb cgroup allows less than requested."""
    levels = [
        usage[size].limit_level
        for size, wanted in sorted(limits.items())
        if size in usage and 0 < (usage[size].limit_bytes or 0) < wanted
    ]
    return "".join(f", as far as {_hugetlb_cgroup(one)} allows" for one in dict.fromkeys(levels))


def no_hugepages(container: str, why: str, advice: str | None = None) -> NotFound:
    """The error for a container that may use no huge pages."""
    return NotFound(
        f"container {container} has no huge pages: {why}",
        "NOT_FOUND",
        reason="NO_HUGEPAGES",
        read="the pod's spec and the hugetlb cgroup",
        advice=advice or "give the container limits of hugepages-1Gi or hugepages-2Mi",
    )


def _hugetlb_cgroup(level: CgroupLevel | None) -> str:
    if level in _OF_THE_CONTAINER:
        return "its hugetlb cgroup"
    return _named(level, "hugetlb cgroup")


def _cgroup(cpu: CPU) -> str:
    return _named(cpu.quota_level, "cgroup")


def _named(level: CgroupLevel | None, what: str) -> str:
    if level is CgroupLevel.ABOVE:
        return f"a {what} {level_name(level)}"
    if level is CgroupLevel.UNSPECIFIED:
        return f"a {what} above its own"
    return f"the {level_name(level)} {what}"


def _ask_for(level: CgroupLevel | None) -> str:
    return f"no pod sets the limit of {_named(level, 'cgroup')}; ask the node's administrator"
