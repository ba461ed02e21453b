"""Pods that a newer list lacks, kept for processes that still run.

A kubelet that starts again answers before it has read its static pods and before the API
server has sent it the rest: such lists lack pods that run. A process in a cgroup
of such a pod is proven by the kernel and known from the list before, so it keeps its
answer. No other pod can be taken for it: pod UIDs and container IDs are used once, and what
the last list says goes before what is remembered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, replace

import msgspec
from netutil.agent.errors import FailedPrecondition
from netutil.agent.parsers.pod_cgroups import normalise_uid
from netutil.agent.pods.index import Match, PodList, index
from netutil.agent.pods.model import Pod

REMEMBERED_SECONDS = 600.0
_AGE_SECONDS = 10.0
MAX_REMEMBERED = 500
"""Pods. The oldest are forgotten first."""
MAX_REMEMBERED_BYTES = 8 * 1024 * 1024
"""Of them as JSON, which is about what they take; one may have 256 KiB of annotations."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """Pods that one list had and its successor lacked, and when they are forgotten."""

    pods: PodList
    until: float
    size_bytes: int


class RecentlyRemoved:
    """What was lost from list to list. Used on one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: PodList | None = None
        self._lost: deque[_Lost] = deque()

    def __len__(self) -> int:
        """Return how many pods are remembered; also for other threads, hence the copy."""
        return sum(len(lost.pods.pods) for lost in tuple(self._lost))

    @property
    def size_bytes(self) -> int:
        """Return the size of all that is remembered."""
        return sum(lost.size_bytes for lost in self._lost)

    def follow(self, last: PodList | None) -> None:
        """Take note of the list that is the last one now."""
        before, self._last = self._last, last
        if before is last or last is None:
            return
        self._forget()
        if before is not None:
            there = {pod.metadata.uid for pod in last.pods}
            removed = [pod for pod in before.pods if pod.metadata.uid not in there]
            if removed:
                until = self._clock() + REMEMBERED_SECONDS
                kept, size_bytes = _bounded(removed)
                pods = index(kept, before.observed_at)
                self._lost.append(_Lost(pods, until, size_bytes))
        while len(self) > MAX_REMEMBERED or self.size_bytes > MAX_REMEMBERED_BYTES:
            self._lost.popleft()

    def find(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return a pod that the last list lacks, as the last one that had it says."""
        self._forget()
        for lost in reversed(self._lost):
            try:
                match = lost.pods.find(pod_uid, container_id)
            except FailedPrecondition:  # it is not that pod's any more, or never was
                continue
            if match is not None:
                return replace(match, is_remembered=True)
        return None

    def forget(self, pod_keys: Set[str]) -> None:
        """Forget pods that have ended, as `PodDirectory.forget`."""
        for lost in tuple(self._lost):
            kept = [pod for pod in lost.pods.pods if pod_keys.isdisjoint(keys_of(pod))]
            if len(kept) < len(lost.pods.pods):
                pods, size_bytes = _bounded(kept)
                self._lost[self._lost.index(lost)] = replace(
                    lost, pods=index(pods, lost.pods.observed_at), size_bytes=size_bytes
                )

    def age(self) -> None:
        """Forget the pods whose time is over before this is called again, in `_AGE_SECONDS`."""
        while self._lost and self._lost[0].until <= self._clock() + _AGE_SECONDS:
            self._lost.popleft()

    def _forget(self) -> None:
        while self._lost and self._lost[0].until <= self._clock():
            self._lost.popleft()


def keys_of(pod: Pod) -> Iterator[str]:
    """Yield what a pod may be counted under: its UIDs, and the IDs of its containers."""
    yield normalise_uid(pod.metadata.uid)
    yield normalise_uid(pod.cgroup_uid)
    yield from (status.id for _, status in pod.container_statuses if status.id)


def _bounded(pods: Iterable[Pod]) -> tuple[list[Pod], int]:
    """Return as many of the pods as may be remembered at once, and their size in bytes."""
    kept: list[Pod] = []
    total = 0
    for pod in pods:
        size = len(msgspec.json.encode(pod))
        if len(kept) < MAX_REMEMBERED and total + size <= MAX_REMEMBERED_BYTES:
            kept.append(pod)
            total += size
    return kept, total
