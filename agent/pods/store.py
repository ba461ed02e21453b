"""The pods of the node, updated by a stream of changes."""

from __future__ import annotations

from collections.abc import Iterable

from netutil.agent.pods.model import Pod, PodListMalformed
from netutil.agent.pods.sources.base import MAX_PODS


class PodStore:
    """Pods by UID. `pods` is the same object until one of them differs."""

    def __init__(self, most_pods: int = MAX_PODS) -> None:
        self._most_pods = most_pods
        self._by_uid: dict[str, Pod] = {}
        self._pods: tuple[Pod, ...] | None = ()

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Return all pods."""
        if self._pods is None:
            self._pods = tuple(self._by_uid.values())
        return self._pods

    def replace(self, pods: Iterable[Pod]) -> None:
        """Hold these and no others. Raises `PodListMalformed` if they are too many."""
        by_uid = {pod.metadata.uid: pod for pod in pods}
        self._ensure_bounded(len(by_uid))
        if by_uid != self._by_uid:
            self._by_uid, self._pods = by_uid, None

    def put(self, pod: Pod) -> None:
        """Hold a pod in the place of the one with its UID. Raises as `replace`."""
        uid = pod.metadata.uid
        if self._by_uid.get(uid) != pod:
            self._ensure_bounded(len(self._by_uid) + (uid not in self._by_uid))
            self._by_uid[uid] = pod
            self._pods = None

    def remove(self, uid: str) -> None:
        """Hold no pod of that UID."""
        if self._by_uid.pop(uid, None) is not None:
            self._pods = None

    def _ensure_bounded(self, count: int) -> None:
        if count > self._most_pods:
            raise PodListMalformed(f"it has more than {self._most_pods} pods for one node")
