"""Releases what is kept of pods, containers and processes that have ended.

A pod has ended when the kernel has removed its cgroup and its last connection is closed. Then its
counters and accounts are dropped. What can be worked out again (`RecentCache` and the like) is not
tied to a pod: it is dropped when nothing has used it for one to two periods.
docs/architecture.md, "Retention after the end of a container", lists all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container, Mapping, Set, Sized
from dataclasses import dataclass
from functools import _lru_cache_wrapper, partial
from typing import Any, NoReturn, Protocol

from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.connections.seen_pods import SeenPods, ended_of
from netutil.agent.errors import AgentError
from netutil.agent.identity.host_root import HOST_ROOT
from netutil.agent.identity.peer import NO_POD
from netutil.agent.pods.directory import PodDirectory

_LOG = logging.getLogger(__name__)
SWEEP_SECONDS = 10.0
_READS_KEY = "retention"
"""What the reads of the sweep are counted under: no pod's, so that none can hold them up."""


class KeptByPod(Sized, Protocol):
    """What is kept by the quota keys of pods, and cannot be worked out again."""

    def retain(self, pod_keys: Container[str]) -> None:
        """Drop what is kept of other pods than these."""


class KeptByUse(Sized, Protocol):
    """What can be worked out or read again."""

    def age(self) -> None:
        """Release what was not used since the last call; called every `SWEEP_SECONDS`."""


@dataclass(frozen=True, slots=True)
class Memos:
    """The results of functions, as `functools.lru_cache` keeps them. `age` drops them all."""

    functions: tuple[_lru_cache_wrapper[Any], ...]

    def __len__(self) -> int:
        return sum(each.cache_info().currsize for each in self.functions)

    def age(self) -> None:
        """Release all results."""
        for each in self.functions:
            each.cache_clear()


@dataclass(frozen=True, slots=True)
class Kept:
    """All that is kept, by the name that `netutil_held_entries` shows it under.

    `by_call` is released with the call, the connection or the second that it is kept for; it is
    only counted here.
    """

    by_pod: Mapping[str, KeptByPod]
    by_use: Mapping[str, KeptByUse]
    by_call: Mapping[str, Sized]

    def counts(self) -> dict[str, int]:
        """Return how many entries there are of each kind."""
        kinds = (*self.by_pod.items(), *self.by_use.items(), *self.by_call.items())
        return {name: len(each) for name, each in kinds}


class Retention:
    """Releases what is kept for pods that have ended. Used on one event loop."""

    def __init__(
        self,
        kept: Kept,
        seen: SeenPods,
        connections: ConnectionRegistry,
        pods: PodDirectory,
        reads: ReadPool,
    ) -> None:
        self._kept = kept
        self._seen = seen
        self._connections = connections
        self._pods = pods
        self._reads = reads
        self.sweeps = 0
        """How many sweeps there have been."""
        self._ended: Set[str] = frozenset()
        """Pods that have ended and that the last pod list still has."""

    def counts(self) -> dict[str, int]:
        """Return how many entries are kept of each kind."""
        return {**self._kept.counts(), "pods": len(self._seen)}

    async def run(self) -> NoReturn:
        """Sweep every `SWEEP_SECONDS`."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except Exception:  # noqa: BLE001 - a bug: what is kept stays, within its bounds
                _LOG.exception("retention: a sweep failed")

    async def sweep(self) -> None:
        """Release what is kept for pods that have ended, and what was not used of late."""
        ended = await self._newly_ended()
        for key in ended:
            self._seen.forget(key)
        live = {NO_POD, HOST_ROOT, *self._seen, *self._connections.keys()}
        self._ended = self._pods.forget((self._ended | ended) - live)
        for by_pod in self._kept.by_pod.values():
            by_pod.retain(live)
        for by_use in self._kept.by_use.values():
            by_use.age()
        self.sweeps += 1

    async def _newly_ended(self) -> Set[str]:
        """Return the keys of the pods that have ended since the last sweep."""
        closed = {
            key: directory
            for key, directory in self._seen.directories.items()
            if not self._connections.count(key)
        }
        if not closed:
            return frozenset()
        try:
            ended = await self._reads.run(
                _READS_KEY, partial(ended_of, closed), "the pods' cgroups"
            )
        except AgentError as error:
            _LOG.warning("retention: it is not known which pods have ended: %s", error)
            return frozenset()
        # A pod of the same key may have connected meanwhile: a static pod that was started again.
        return ended - set(self._connections.keys())
