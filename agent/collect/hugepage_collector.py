"""Collects the huge pages of callers."""

from __future__ import annotations

from functools import partial

from netutil.agent.collect import amounts
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import (
    AskedHugepages,
    Hugepages,
)
from netutil.agent.facts.hugepages import (
    HeldPools,
    HugepagePool,
    HugepageUsage,
    read_pools,
)
from netutil.agent.parsers.cgroup import CgroupIdentity


class HugepageCollector:
    """Gathers the huge pages of a container, of its pod and of the node."""

    def __init__(
        self,
        callers: CallerResolver,
        reads: ReadPool,
        containers: ContainerCache,
        host_root: str,
    ) -> None:
        self._callers = callers
        self._reads = reads
        self._containers = containers
        self._host_root = host_root
        self._pools = HeldPools(host_root)

    async def of_process(self, caller: Caller, pid: str) -> Hugepages:
        """Return the huge pages; the kernel's half also while there is no pod list."""
        if not pid or caller.is_itself(pid):
            found = self.own(caller)
            return found or await self._read_hugepages(caller, caller.cgroups)
        process, cgroups = await self._callers.process(caller, pid)
        process.close()
        return self._hugepages(caller, cgroups) or await self._read_hugepages(caller, cgroups)

    def own(self, caller: Caller) -> Hugepages | None:
        """Return the huge pages of the caller itself, None where they are to be waited for."""
        return self._hugepages(caller, caller.cgroups)

    def _hugepages(self, caller: Caller, cgroups: CgroupIdentity) -> Hugepages | None:
        pools = self._pools.known()
        return None if pools is None else self._merge(caller, cgroups, pools)

    async def _read_hugepages(self, caller: Caller, cgroups: CgroupIdentity) -> Hugepages:
        read = partial(read_pools, self._host_root)
        pools = await self._reads.run(caller.peer.pod_key, read, "/sys/kernel/mm/hugepages")
        return self._merge(caller, cgroups, pools)

    def _merge(
        self, caller: Caller, cgroups: CgroupIdentity, pools: tuple[HugepagePool, ...]
    ) -> Hugepages:
        container = self._containers.container(cgroups)
        usage = self._containers.read(container, container.usage)
        if caller.match is None:
            return Hugepages((), usage, pools, caller.unavailable)
        pod = caller.match.pod
        asked = container.kept.get("asked hugepages", (pod,), amounts.asked_hugepages)
        return container.kept.get("hugepages", (asked, usage, pools), _hugepages)


def _hugepages(
    asked: AskedHugepages, usage: tuple[HugepageUsage, ...], pools: tuple[HugepagePool, ...]
) -> Hugepages:
    return Hugepages(asked.containers, usage, pools, asked.error, asked.pod)
