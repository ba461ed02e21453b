"""A cache of what was used lately: what is found, what is released and when, and its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.recent_cache import RecentCache


def test_what_was_kept_is_found() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    cache["a"] = 1
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)


def test_an_entry_is_released_at_the_second_aging_after_its_last_use() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    cache["a"] = 1
    cache.age()
    assert len(cache) == 1
    cache.age()
    assert (len(cache), cache.get("a")) == (0, None)


def test_a_period_may_be_that_of_several_calls() -> None:
    cache: RecentCache[str, int] = RecentCache(4, calls_per_period=3)
    cache["a"] = 1
    for _ in range(5):
        cache.age()
    assert len(cache) == 1
    cache.age()
    assert len(cache) == 0


def test_an_entry_that_is_used_stays() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    cache["a"] = 1
    for _ in range(10):
        cache.age()
        assert (cache.get("a"), len(cache)) == (1, 1)


def test_an_entry_that_is_replaced_is_held_once() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    cache["a"] = 1
    cache.age()
    cache["a"] = 2
    assert (cache.get("a"), len(cache)) == (2, 1)


def test_a_default_is_kept_only_where_there_was_nothing() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    assert [cache.setdefault("a", 1), cache.setdefault("a", 2), cache.get("a")] == [1, 1, 1]


@given(st.lists(st.tuples(st.sampled_from("sga"), st.integers(0, 30))), st.integers(2, 12))
def test_a_cache_never_holds_more_than_its_bound_nor_a_wrong_value(
    steps: list[tuple[str, int]], most: int
) -> None:
    cache: RecentCache[int, int] = RecentCache(most)
    for step, key in steps:
        if step == "s":
            cache[key] = -key - 1
            assert cache.get(key) == -key - 1
        elif step == "g":
            assert cache.get(key) in (None, -key - 1)
        else:
            cache.age()
        assert len(cache) <= most


def test_a_full_cache_releases_what_was_not_used_of_late() -> None:
    cache: RecentCache[int, int] = RecentCache(8)
    for number in range(1, 100):
        cache[number] = number
        assert cache.setdefault(0, 7) == 7
    assert len(cache) <= 8
