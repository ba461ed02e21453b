"""The pods of the node, or other objects, updated by a stream of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from netutil.agent.pods.model import Pod, PodListMalformed
from netutil.agent.pods.sources.base import MAX_PODS

T = TypeVar("T")


class ObjectStore(Generic[T]):
    """Objects by UID. `pods` is the same tuple until one of them differs."""

    def __init__(self, uid_of: Callable[[T], str], most: int, most_of: str) -> None:
        """`most_of` ends the sentence that there are too many: "pods for one node"."""
        self._uid_of = uid_of
        self._most = most
        self._most_of = most_of
        self._by_uid: dict[str, T] = {}
        self._pods: tuple[T, ...] | None = ()

    @property
    def pods(self) -> tuple[T, ...]:
        """Return all objects."""
        if self._pods is None:
            self._pods = tuple(self._by_uid.values())
        return self._pods

    def replace(self, pods: Iterable[T]) -> None:
        """Hold these and no others. Raises `PodListMalformed` if they are too many."""
        by_uid = {self._uid_of(pod): pod for pod in pods}
        self._ensure_bounded(len(by_uid))
        if by_uid != self._by_uid:
            self._by_uid, self._pods = by_uid, None

    def put(self, pod: T) -> None:
        """Hold an object in the place of the one with its UID. Raises as `replace`."""
        uid = self._uid_of(pod)
        if self._by_uid.get(uid) != pod:
            self._ensure_bounded(len(self._by_uid) + (uid not in self._by_uid))
            self._by_uid[uid] = pod
            self._pods = None

    def remove(self, uid: str) -> None:
        """Hold no object of that UID."""
        if self._by_uid.pop(uid, None) is not None:
            self._pods = None

    def _ensure_bounded(self, count: int) -> None:
        if count > self._most:
            raise PodListMalformed(f"it has more than {self._most} {self._most_of}")


def uid_of_pod(pod: Pod) -> str:
    """Return its UID."""
    return pod.metadata.uid


class PodStore(ObjectStore[Pod]):
    """The pods of one node."""

    def __init__(self, most_pods: int = MAX_PODS) -> None:
        super().__init__(uid_of_pod, most_pods, "pods for one node")
