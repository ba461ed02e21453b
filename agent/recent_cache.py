"""A bounded cache of recently used values that can be computed or read again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class RecentCache(Generic[K, V]):
    """Values by key, which are released when they have not been used for a time.

    There are two generations, as in a generational garbage collector. What is used is in the
    young one; `age` drops the old one and makes the young one old. So an entry is released
    between one and two periods of `age` after its last use, and no entry needs a time of its own.
    A cache that is full ages early. `None` is not a value.

    Used on one thread or many: each step is one operation of a dictionary.
    """

    __slots__ = ("_calls", "_calls_per_period", "_max_young", "_old", "_young")

    def __init__(self, max_entries: int, calls_per_period: int = 1) -> None:
        """`max_entries` is how many entries there may be, two at least.

        A period is that of so many calls of `age`.
        """
        self._max_young = max_entries // 2
        self._calls = 0
        self._calls_per_period = calls_per_period
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: K) -> V | None:
        """Return the value of a key, None if there is none."""
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None)
            if found is not None:
                self[key] = found
        return found

    def setdefault(self, key: K, default: V) -> V:
        """Return the value of a key, which is `default` if there was none."""
        found = self.get(key)
        if found is None:
            self[key] = found = default
        return found

    def __setitem__(self, key: K, value: V) -> None:
        if len(self._young) >= self._max_young and key not in self._young:
            self._drop_old()
        self._young[key] = value
        self._old.pop(key, None)

    def age(self) -> None:
        """Release, once in a period, what was not used since the end of the last one."""
        self._calls += 1
        if self._calls >= self._calls_per_period:
            self._calls = 0
            self._drop_old()

    def _drop_old(self) -> None:
        self._old, self._young = self._young, {}


class SharedRecentCache(RecentCache[K, V]):
    """A `RecentCache` of many owners, each of which has a limit of entries in each generation.

    So an owner has at most twice the limit, and the entries of one owner do not make a full
    cache release those of others. What is past the limit takes the place of the owner's oldest
    entry. Threads that keep something at the same moment may pass the limit by an entry each.
    """

    __slots__ = ("_max_of_owner", "_owner_of", "_young_by_owner")

    def __init__(
        self,
        max_entries: int,
        max_of_owner: int,
        owner_of: Callable[[V], str],
        calls_per_period: int = 1,
    ) -> None:
        """`max_of_owner` is the limit of one generation; `owner_of` names the owner of a value."""
        super().__init__(max_entries, calls_per_period)
        self._max_of_owner = max_of_owner
        self._owner_of = owner_of
        self._young_by_owner: dict[str, list[K]] = {}

    def __setitem__(self, key: K, value: V) -> None:
        is_new = key not in self._young
        super().__setitem__(key, value)
        if not is_new:
            return
        keys = self._young_by_owner.setdefault(self._owner_of(value), [])
        keys.append(key)
        if len(keys) > self._max_of_owner:
            self._young.pop(keys.pop(0), None)

    def _drop_old(self) -> None:
        super()._drop_old()
        self._young_by_owner = {}
