"""Cache of containers, with their cgroup files held open.

A container is known by its pod's UID, its ID and the directories of its cgroups. Files that were
opened there are of those cgroups for ever: one that is removed answers ENODEV, whatever is
made under its name, and then everything is opened again. (Only cgroup v1 lets root rename a
cgroup; then the held one goes on being answered for. No container runtime does that.) Each
answer reads all files that it is made from, so it is never older than a read by path at that
moment. What was made of them is kept while they hold the same bytes.

Nothing here can block: the files are counters and masks that the kernel shows without a lock, or
below a spinlock (`callback_lock` in kernel/cgroup/cpuset.c). cgroup.procs, tasks and
/proc/<pid>/cgroup take cgroup locks that a workload can keep busy, and are not read.

What is held is bounded by descriptors and by containers, of each pod and in all, the least recently
used first out. A container that was not
asked about for `MAX_IDLE_SECONDS`, or whose cgroup was removed, is released by a sweep, which
runs while anything is held.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import is_
from typing import TypeVar

from netutil.agent.errors import AgentError, is_resource_exhaustion
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.cpu import CpuDirectories, CpuFacts, read_cpu
from netutil.agent.facts.cpu_partition import CpusetPartition, read_partition
from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue
from netutil.agent.facts.hugepages import read_usage
from netutil.agent.parsers.cgroup import CgroupIdentity

T = TypeVar("T")
MAX_IDLE_SECONDS = 300.0
SWEEP_SECONDS = 10.0
MAX_SWEPT = 64
"""Containers that one sweep looks at: less than half a millisecond."""
MAX_IDENTITIES = 4
"""Identities by which a container is found at once. Its processes have one for each cgroup that
they are in below the container's own, and a workload may make many."""
MAX_CONTAINERS = 1024
MAX_CONTAINERS_OF_POD = 32
"""A pod whose containers are made again and again, and ask, loses its own ones first."""


@dataclass(frozen=True, slots=True)
class ContainerPlaces:
    """Where a container's files are; None in a hierarchy that it has no cgroup in."""

    cpu: CpuDirectories | None
    hugetlb: ControllerDirectory | None


_Key = tuple[str | None, str | None, ContainerPlaces]


def _pod_of(key: _Key) -> str:
    """Return what the limit of a pod counts a container under."""
    pod_uid, container_id, _ = key
    return pod_uid or container_id or ""


class HeldContainer:
    """One container. `kept` is for what is made of its values.

    `cpu` and `partition` are None where it has no cpuset hierarchy. `ContainerCache.read` reads
    them.
    """

    __slots__ = (
        "_files",
        "cpu",
        "identities",
        "kept",
        "key",
        "partition",
        "pod",
        "usage",
        "used_at",
    )

    def __init__(self, key: _Key, directories: HeldDirectories) -> None:
        places = key[2]
        self.key = key
        self.pod = _pod_of(key)
        self.used_at = 0.0
        self.identities: OrderedDict[int, CgroupIdentity] = OrderedDict()
        self.kept = Kept()
        self._files = files = HeldFiles(directories)
        self.usage = HeldValue(files, partial(read_usage, places.hugetlb))
        self.cpu: HeldValue[CpuFacts] | None = None
        self.partition: HeldValue[CpusetPartition] | None = None
        if places.cpu is not None:
            self.cpu = HeldValue(files, partial(read_cpu, places.cpu))
            self.partition = HeldValue(files, partial(read_partition, places.cpu))

    def has_ended(self) -> bool:
        """Return whether a cgroup of it was removed, or a controller of it turned off."""
        return self._files.has_removed()

    def close(self) -> None:
        """Let its files go."""
        self._files.close()


class Kept:
    """What was made last, by name, kept while it would be made of the very same objects."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[str, tuple[tuple[object, ...], object]] = {}

    def get(self, name: str, of: tuple[object, ...], make: Callable[..., T]) -> T:
        """Return what `make` makes of `of`. The name says what that is, and there are few."""
        known = self._made.get(name)
        if known is not None and all(map(is_, known[0], of)):
            return known[1]  # type: ignore[return-value]  # made by the same `make`
        made = make(*of)
        self._made[name] = of, made
        return made


class ContainerCache:
    """The held containers. Used on one event loop.

    `places_of` returns where the files of a process's container are. `evictions` counts the
    containers evicted from a full cache, `ended` those whose cgroups were removed.
    """

    def __init__(
        self,
        places_of: Callable[[CgroupIdentity], ContainerPlaces],
        max_descriptors: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places_of = places_of
        self._max_descriptors = max_descriptors
        self._clock = clock
        self._directories = HeldDirectories()
        self._by_use: OrderedDict[HeldContainer, None] = OrderedDict()
        self._by_pod: dict[str, OrderedDict[HeldContainer, None]] = {}
        self._by_key: dict[_Key, HeldContainer] = {}
        self._by_identity: dict[int, HeldContainer] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self.evictions = 0
        self.ended = 0

    def __len__(self) -> int:
        return len(self._by_use)

    @property
    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return self._directories.descriptors

    def container(self, cgroups: CgroupIdentity) -> HeldContainer:
        """Return the container of a process. Raises OSError."""
        found = self._by_identity.get(id(cgroups)) or self._find(cgroups)
        self._use(found)
        return found

    def read(self, container: HeldContainer, value: HeldValue[T]) -> T:
        """Return a value of the container as of now. Raises what it is made with raises."""
        if container not in self._by_use:  # released since: its files would stay open
            return value.by_path()
        try:
            return value.get()
        except AgentError:
            self._release(container)  # mostly because it has ended
            raise
        except OSError as error:
            self._release(container)
            if not is_resource_exhaustion(error):
                raise
            self.close()  # what is short may be what is held here
            return value.by_path()

    def read_open(self, directory: str, name: str) -> bytes | None:
        """Return a file as of now if it is held open for a container, else None. Raises OSError.

        Nothing is opened or held longer for it.
        """
        return self._directories.read_open(directory, name)

    def renew(self, cgroups: CgroupIdentity) -> None:
        """Take a container for used now, if it is held."""
        found = self._by_identity.get(id(cgroups))
        if found is not None:
            self._use(found)

    def close(self) -> None:
        """Let everything go."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for container in tuple(self._by_use):
            self._release(container)

    def _find(self, cgroups: CgroupIdentity) -> HeldContainer:
        """Return the container of an identity that was not seen before, or not lately."""
        key = cgroups.pod_uid, cgroups.container_id, self._places_of(cgroups)
        found = self._by_key.get(key)
        if found is None:
            self._evict_for(_pod_of(key))
            found = self._by_key[key] = HeldContainer(key, self._directories)
            self._by_use[found] = None
            self._by_pod.setdefault(found.pod, OrderedDict())[found] = None
            if self._sweeping is None:
                self._sweep_later()
        if len(found.identities) >= MAX_IDENTITIES:
            del self._by_identity[found.identities.popitem(last=False)[0]]
        found.identities[id(cgroups)] = cgroups
        self._by_identity[id(cgroups)] = found
        return found

    def _use(self, container: HeldContainer) -> None:
        container.used_at = self._clock()
        self._by_use.move_to_end(container)
        self._by_pod[container.pod].move_to_end(container)

    def _evict_for(self, pod: str) -> None:
        """Release containers for another one of a pod: the pod's own past its limit, then any."""
        own = self._by_pod.get(pod, ())
        if len(own) >= MAX_CONTAINERS_OF_POD:
            self._release(next(iter(own)))
            self.evictions += 1
        while self._by_use and (
            self._directories.descriptors > self._max_descriptors
            or len(self._by_use) >= MAX_CONTAINERS
        ):
            self._release(next(iter(self._by_use)))
            self.evictions += 1

    def _release(self, container: HeldContainer) -> None:
        """Release a container. Nothing happens if it was released before."""
        if container not in self._by_use:
            return
        del self._by_use[container]
        del self._by_key[container.key]
        of_pod = self._by_pod[container.pod]
        del of_pod[container]
        if not of_pod:
            del self._by_pod[container.pod]
        for number in container.identities:
            del self._by_identity[number]
        container.close()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self.sweep)

    def sweep(self) -> None:
        """Let those go, among the least recently used, that are idle or have ended."""
        used_before = self._clock() - MAX_IDLE_SECONDS
        for container in tuple(islice(self._by_use, MAX_SWEPT)):
            if container.has_ended():
                self._release(container)
                self.ended += 1
            elif container.used_at < used_before:
                self._release(container)
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        if self._by_use:
            self._sweep_later()
