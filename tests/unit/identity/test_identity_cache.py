"""The cached texts that name callers: one pod has few, and they are released."""

from __future__ import annotations

import tracemalloc

from netutil.agent.identity.cgroups import MAX_IDENTITIES_OF_POD, CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy

CONTAINER = "c" * 64


def tree() -> CgroupTree:
    return CgroupTree({UNIFIED: Hierarchy(2, "/sys/fs/cgroup")})


def text(pod: int, below: str = "") -> str:
    return f"0::/kubepods/burstable/pod{pod:08x}-6d3e-4f70-9a1b-0c2d3e4f5a6b/{CONTAINER}{below}\n"


def test_a_pod_with_many_cgroups_evicts_no_identity_of_others() -> None:
    one = tree()
    kept = one.identify(text(0))
    for number in range(2000):
        found = one.identify(text(1, f"/{number}"))
        assert (found.pod_uid, found.container_id) == (
            f"{1:08x}6d3e4f709a1b0c2d3e4f5a6b",
            CONTAINER,
        )
        if number % 100 == 0:
            one.identities.age()
            assert one.identify(text(0)) is kept
        assert len(one.identities) <= MAX_IDENTITIES_OF_POD + 1


def test_the_longest_texts_of_one_pod_take_little_memory() -> None:
    one = tree()
    segment = "/" + "x" * 250
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1000):
            one.identify(text(1, segment * 15 + f"/{number}"))
            if number % 500 == 0:
                one.identities.age()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0 < grown < 1024 * 1024


def test_each_of_many_pods_keeps_its_identities() -> None:
    one = tree()
    texts = [text(pod, below) for pod in range(200) for below in ("", "/init")]
    kept = [one.identify(each) for each in texts]
    assert all(one.identify(each) is found for each, found in zip(texts, kept, strict=True))


def test_unused_identities_are_released_in_two_sweeps() -> None:
    one = tree()
    one.identify(text(1))
    for _ in range(2):
        one.identities.age()
    assert len(one.identities) == 0


def test_identities_without_a_pod_uid_are_bounded_by_container() -> None:
    one = tree()
    for number in range(100):
        one.identify(f"0::/system.slice/crio-{CONTAINER}.scope/{number}\n")
    assert len(one.identities) <= MAX_IDENTITIES_OF_POD
