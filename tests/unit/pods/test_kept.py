"""Values kept with an entry of a pod list: bounded, and released with the list."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from netutil.agent.pods.index import Match, PodList
from netutil.agent.pods.kept import MAX_BYTES, MAX_BYTES_PER_POD, NOTHING_KEPT, Kept, KeptBudget

from tests.unit.pods.test_index import APP, DEBUG, OTHER, OTHER_UID, UID, WEB, listed, pod


def named(pods: PodList, pod_uid: str | None = UID, container_id: str = APP) -> Match:
    match = pods.named(pod_uid, container_id)
    assert match is not None
    return match


def test_a_container_that_is_named_is_the_same_entry_each_time() -> None:
    pods = listed(WEB)
    assert named(pods) is named(pods)
    assert named(pods) == pods.find(UID, APP)
    assert named(listed(WEB)) is not named(pods)


def test_each_container_has_an_entry_of_its_own() -> None:
    pods = listed(WEB)
    assert named(pods).container_name == "app"
    assert named(pods, container_id=DEBUG).container_name == "debug"


def test_another_spelling_of_the_pod_uid_is_the_same_answer() -> None:
    pods = listed(WEB)
    assert named(pods, UID.replace("-", "_")) == named(pods, UID)


def test_a_refused_caller_has_no_name() -> None:
    twice = pod("other", OTHER_UID, {"app": f"containerd://{APP}"})
    assert listed(WEB, twice).named(UID, APP) is None
    assert listed(WEB).named(OTHER_UID, APP) is None
    assert listed(WEB).named(UID, OTHER) is None, "the pod is known, the container is not"


def test_a_found_entry_is_not_given_to_another_pod_uid() -> None:
    pods = listed(WEB)
    named(pods)
    assert pods.named(OTHER_UID, APP) is None
    assert named(pods).container_name == "app"


def test_a_variant_of_an_entry_inherits_no_derived_values() -> None:
    match = named(listed(WEB))
    match.kept.keep("answer", b"bytes", 5)
    assert replace(match, container_name="other").kept.get("answer") is None
    assert match.kept.get("answer") == b"bytes"


def test_an_entry_not_found_by_name_keeps_nothing() -> None:
    match = listed(WEB).find(UID, APP)
    assert match is not None and match.kept is NOTHING_KEPT
    match.kept.keep("answer", b"bytes", 5)
    assert match.kept.get("answer") is None


class _Made:
    """Something that was made of an entry."""


def test_kept_values_are_released_with_the_list() -> None:
    pods = listed(WEB)
    made = _Made()
    named(pods).kept.keep("answer", made, 5)
    released = weakref.ref(made)
    del made
    assert released() is not None and pods.budget.bytes == 5
    del pods
    gc.collect()
    assert released() is None


def test_one_pod_uses_no_space_of_others() -> None:
    budget = KeptBudget()
    first, second, other = Kept(budget, "a"), Kept(budget, "a"), Kept(budget, "b")
    first.keep("answer", 1, MAX_BYTES_PER_POD)
    second.keep("answer", 2, 1)
    other.keep("answer", 3, 1)
    assert (first.get("answer"), second.get("answer"), other.get("answer")) == (1, None, 3)
    assert budget.bytes == MAX_BYTES_PER_POD + 1


def test_all_pods_together_have_a_limit() -> None:
    budget = KeptBudget()
    most = MAX_BYTES // MAX_BYTES_PER_POD
    kept = [Kept(budget, str(number)) for number in range(most + 1)]
    for one in kept:
        one.keep("answer", 1, MAX_BYTES_PER_POD)
    assert [one.get("answer") for one in kept] == [1] * most + [None]
    assert budget.bytes == MAX_BYTES


@pytest.mark.parametrize("times", [2, 3])
def test_a_value_kept_under_a_name_counts_once(times: int) -> None:
    budget = KeptBudget()
    kept = Kept(budget, "a")
    for number in range(times):
        kept.keep("answer", number, 10)
    assert (kept.get("answer"), budget.bytes) == (0, 10)
