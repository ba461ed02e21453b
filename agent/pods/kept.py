"""Values kept with an entry of a pod list, for as long as the list is used."""

from __future__ import annotations

MAX_BYTES = 8 * 1024 * 1024
"""Of all that is kept with one list."""
MAX_BYTES_PER_POD = 64 * 1024
"""Of all that is kept with one pod: what a pod writes into its annotations takes no bytes of
others."""


class KeptBudget:
    """The bytes that are kept with one pod list, of each pod and in all."""

    __slots__ = ("_by_pod", "bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self._by_pod: dict[str, int] = {}

    def take(self, pod_uid: str, size_bytes: int) -> bool:
        """Return whether so many bytes may be kept, and count them then."""
        of_pod = self._by_pod.get(pod_uid, 0) + size_bytes
        if of_pod > MAX_BYTES_PER_POD or self.bytes + size_bytes > MAX_BYTES:
            return False
        self._by_pod[pod_uid] = of_pod
        self.bytes += size_bytes
        return True


class Kept:
    """What is kept with one entry, by name. Without a budget nothing is kept."""

    __slots__ = ("_budget", "_by_name", "_pod_uid")

    def __init__(self, budget: KeptBudget | None = None, pod_uid: str = "") -> None:
        self._by_name: dict[str, object] = {}
        self._budget = budget
        self._pod_uid = pod_uid

    def get(self, name: str) -> object | None:
        """Return what is kept under a name."""
        return self._by_name.get(name)

    def keep(self, name: str, value: object, size_bytes: int) -> None:
        """Keep something under a name that has nothing yet, if the budget allows it."""
        if name in self._by_name or self._budget is None:
            return
        if self._budget.take(self._pod_uid, size_bytes):
            self._by_name[name] = value


NOTHING_KEPT = Kept()
