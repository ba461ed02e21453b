"""Whose limit a DPDK line is warned about: the container's own, or a shared one."""

from __future__ import annotations

import pytest
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.dpdk import GIBIBYTE, MEBIBYTE, facts, line_of, option, refusal_of

ABOVE = [
    (api.CGROUP_LEVEL_QOS_CLASS, "the QoS class {}"),
    (api.CGROUP_LEVEL_KUBEPODS, "the kubepods {}"),
    (api.CGROUP_LEVEL_ABOVE, "a {} above kubepods"),
]
SHARED = [(api.CGROUP_LEVEL_POD, "the pod {}"), *ABOVE]


def throttled(level: api.CgroupLevel.ValueType | None, cores: float = 0.5, cpus: str = "1") -> str:
    response = facts()
    response.cpu.quota_cores = cores
    response.cpu.effective_cpus = response.cpu.affinity = response.cpu.exclusive_cpus = cpus
    response.cpu.ClearField("quota_level")
    if level is not None:
        response.cpu.quota_level = level
    (warning,) = line_of(response).warnings
    return warning


def with_hugetlb(
    limit_bytes: int, level: api.CgroupLevel.ValueType | None, *, of_the_pod: bool = False
) -> api.AllResponse:
    """A container, or its pod as a whole, that asks for 1 GiB in pages of 1 GiB."""
    response = facts()
    del response.resources.memory[:]
    size = GIBIBYTE if limit_bytes == 0 else 2 * MEBIBYTE
    if of_the_pod:
        del response.hugepages.containers[:]
        response.hugepages.pod.add(page_size_bytes=size, limit_bytes=GIBIBYTE)
    else:
        response.hugepages.containers[0].page_size_bytes = size
    del response.hugepages.usage[:]
    response.hugepages.usage.add(page_size_bytes=size, limit_bytes=limit_bytes, limit_level=level)
    return response


@pytest.mark.parametrize("level", [None, api.CGROUP_LEVEL_CONTAINER])
def test_the_container_may_raise_a_quota_that_it_set_itself(
    level: api.CgroupLevel.ValueType | None,
) -> None:
    assert throttled(level) == (
        "a CPU quota of 0.5 CPUs stops 1 polling thread in each period:"
        " give the container as many CPUs as it polls on, or no CPU limit"
    )


def test_a_quota_of_the_pod_is_the_pods_to_raise() -> None:
    assert throttled(api.CGROUP_LEVEL_POD) == (
        "a CPU quota of 0.5 CPUs, the limit of the pod cgroup, stops 1 polling thread in each"
        " period: give the pod as many CPUs as its containers use together, or no CPU limit"
    )


@pytest.mark.parametrize(("level", "name"), ABOVE)
def test_a_quota_above_the_pod_is_the_administrators_to_raise(
    level: api.CgroupLevel.ValueType, name: str
) -> None:
    cgroup = name.format("cgroup")
    assert throttled(level, 0.25) == (
        f"a CPU quota of 0.25 CPUs, the limit of {cgroup}, stops 1 polling thread in each period:"
        f" no pod sets the limit of {cgroup}; ask the node's administrator"
    )


def test_one_cpu_and_two_threads_are_counted_in_words_that_fit() -> None:
    text = throttled(api.CGROUP_LEVEL_CONTAINER, 1.0, "1-2")
    assert text.startswith("a CPU quota of 1 CPU stops 2 polling threads in each period")


@pytest.mark.parametrize("of_the_pod", [False, True])
@pytest.mark.parametrize(("level", "name"), SHARED)
def test_a_cgroup_above_that_allows_no_huge_pages_is_named(
    level: api.CgroupLevel.ValueType, name: str, *, of_the_pod: bool
) -> None:
    error = refusal_of(with_hugetlb(0, level, of_the_pod=of_the_pod))
    assert error.reason == "NO_HUGEPAGES"
    assert f"{name.format('hugetlb cgroup')} allows none" in error.message
    assert "its hugetlb cgroup" not in error.message
    assert "give the container" not in (error.advice or "")
    assert ("spec.resources" in (error.advice or "")) is (level == api.CGROUP_LEVEL_POD)


@pytest.mark.parametrize("of_the_pod", [False, True])
@pytest.mark.parametrize("level", [None, api.CGROUP_LEVEL_CONTAINER])
def test_a_container_cgroup_that_allows_no_pages_is_its_own(
    level: api.CgroupLevel.ValueType | None, *, of_the_pod: bool
) -> None:
    error = refusal_of(with_hugetlb(0, level, of_the_pod=of_the_pod))
    assert "its hugetlb cgroup allows none" in error.message
    assert "give the container" in (error.advice or "")


@pytest.mark.parametrize("of_the_pod", [False, True])
@pytest.mark.parametrize(("level", "name"), [(api.CGROUP_LEVEL_CONTAINER, "its {}"), *SHARED])
def test_a_smaller_cgroup_limit_is_named_as_source_of_the_memory(
    level: api.CgroupLevel.ValueType, name: str, *, of_the_pod: bool
) -> None:
    line = line_of(with_hugetlb(8 * MEBIBYTE, level, of_the_pod=of_the_pod))
    assert option(line, "--socket-mem") == "8"
    (memory,) = (one for one in line.arguments if "--socket-mem" in one.words[0])
    assert f", as far as {name.format('hugetlb cgroup')} allows, on the NUMA" in memory.source


def test_a_limit_that_lowers_nothing_is_no_source() -> None:
    line = line_of(with_hugetlb(2 * GIBIBYTE, api.CGROUP_LEVEL_POD))
    assert option(line, "--socket-mem") == "1024"
    (memory,) = (one for one in line.arguments if "--socket-mem" in one.words[0])
    assert "as far as" not in memory.source
