"""A cache of what was used lately: what is found, what is released and when, and its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.recent_cache import RecentCache, SharedRecentCache


def test_a_kept_value_is_found() -> None:
    cache: RecentCache[str, int] = RecentCache(4)
    cache["a"] = 1
    assert (cache.get("a"), cache.get("b"), len(cache)) == (1, None, 1)


def test_an_entry_is_released_at_the_second_aging_after_its_use() -> None:
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
def test_a_cache_never_exceeds_its_bound_or_holds_a_wrong_value(
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


def shared(max_entries: int = 100, max_of_owner: int = 2) -> SharedRecentCache[str, str]:
    """Return a cache of values whose first letter names their owner."""
    return SharedRecentCache(max_entries, max_of_owner, lambda value: value[0])


def test_an_owner_past_its_limit_keeps_its_newest_entries() -> None:
    """A process that a pod has just started is of more use than those that it had before."""
    cache = shared()
    for text in ("a1", "a2", "a3", "b1"):
        cache[text] = text
    assert [cache.get(text) for text in ("a1", "a2", "a3", "b1")] == [None, "a2", "a3", "b1"]


def test_an_entry_that_an_owner_has_lost_may_come_back() -> None:
    cache = shared()
    for text in ("a1", "a2", "a3", "a1", "a4", "a1"):
        cache[text] = text
        assert cache.get(text) == text
        assert len(cache) <= 2


def test_an_owner_has_at_most_twice_its_limit() -> None:
    cache = shared()
    for period in range(5):
        for number in range(5):
            cache[f"a{period}{number}"] = "a"
            for earlier in range(period + 1):
                cache.get(f"a{earlier}{number}")
        assert len(cache) <= 4
        cache.age()
    assert len(cache) <= 2


def test_an_owner_at_its_limit_may_replace_a_value() -> None:
    cache = shared(max_of_owner=1)
    cache["key"] = "a1"
    cache["key"] = "a2"
    assert (cache.get("key"), len(cache)) == ("a2", 1)


def test_an_owner_may_keep_others_in_the_next_period() -> None:
    cache = shared(max_of_owner=1)
    cache["a1"] = cache["a2"] = "a"
    cache.age()
    cache["a2"] = "a"
    assert cache.get("a2") == "a"


def test_one_owner_evicts_no_entries_of_others() -> None:
    cache = shared(max_entries=8)
    cache["b"] = "b"
    for number in range(1000):
        cache[f"a{number}"] = "a"
    assert cache.get("b") == "b"


def test_a_shared_cache_that_is_full_takes_new_owners() -> None:
    cache = shared(max_entries=8)
    for letter in "abcdefghij" * 2:
        cache[letter] = letter
        assert cache.get(letter) == letter
        assert len(cache) <= 8
