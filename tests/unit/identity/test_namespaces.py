"""A pid means what the caller's own PID namespace makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from netutil.agent.errors import AgentError, NotFound, Reason, ResourceExhausted, Unauthenticated
from netutil.agent.identity import namespaces as module
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.namespaces import find_process, shares_pid_namespace
from netutil.agent.identity.process import PinnedProcess

from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.processes import child_of, open_descriptors, pinned, process

pytestmark = [pytest.mark.root, needs_lab]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def one(lab: Lab) -> LabContainer:
    return lab.pod("own").container("app")


def found(caller: int, number: int, container: LabContainer) -> int:
    """Return the host pid of what `number` names for a caller of the container's pod."""
    processes = processes_below(str(container.cgroups[0].parent))
    with pinned(caller) as pin:
        process = find_process(pin, number, processes)
    try:
        return process.pid
    finally:
        process.close()


def test_a_process_is_found_by_its_number_in_the_container(one: LabContainer) -> None:
    with one.spawn(["sleep", "60"]) as other:
        number = inside_pid(other.host_pid)
        assert number != other.host_pid
        assert found(one.pid, number, one) == other.host_pid
        other.kill()


def test_the_callers_own_number_is_the_caller(one: LabContainer) -> None:
    assert found(one.pid, 1, one) == one.pid


def test_an_unused_inner_pid_is_not_found(one: LabContainer) -> None:
    before = open_descriptors()
    with pytest.raises(NotFound) as refused:
        found(one.pid, 4000, one)
    assert refused.value.reason is Reason.PID_NOT_FOUND
    assert open_descriptors() == before


def test_a_host_number_means_nothing_inside(one: LabContainer) -> None:
    with one.spawn(["sleep", "60"]) as other:
        with pytest.raises(NotFound):
            found(one.pid, other.host_pid, one)
        other.kill()


def test_containers_of_separate_namespaces_are_invisible(one: LabContainer) -> None:
    side = one.pod.container("side")
    assert found(side.pid, 1, one) == side.pid
    assert found(one.pid, 1, one) == one.pid
    with pinned(one.pid) as first, pinned(side.pid) as second:
        assert not shares_pid_namespace(first, second)


def test_containers_of_one_shared_namespace_see_each_other(lab: Lab) -> None:
    pod = lab.pod("shared", share_process_namespace=True)
    first, second = pod.container("a"), pod.container("b")
    assert found(first.pid, inside_pid(second.pid), first) == second.pid
    with pinned(first.pid) as one_pin, pinned(second.pid) as other_pin:
        assert shares_pid_namespace(one_pin, other_pin)


def test_a_nested_process_is_named_by_the_callers_number(
    one: LabContainer,
) -> None:
    nested = ["unshare", "--pid", "--fork", "--kill-child", "sleep", "60"]
    with one.spawn(nested) as outer:
        inner = eventually_child(outer.host_pid)
        numbers = status_numbers(inner)
        assert len(numbers) == 3
        assert numbers[2] == 1
        assert found(one.pid, numbers[1], one) == inner
        assert found(inner, 1, one) == inner  # it sees itself as 1, and not the container's init
        outer.kill()


def test_a_caller_in_the_host_namespace_uses_host_numbers() -> None:
    with process() as caller, process() as target, pinned(caller.pid) as pin:
        other = find_process(pin, target.pid, ())
        assert other.pid == target.pid
        other.close()


def test_a_pod_of_too_many_processes_is_not_searched_to_its_end(
    one: LabContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PROCESSES", 1)
    with one.spawn(["sleep", "60"]) as other:
        with pytest.raises(ResourceExhausted) as refused:
            found(one.pid, 4000, one)
        other.kill()
    assert refused.value.reason is Reason.TOO_MANY_PROCESSES


def test_a_caller_that_ended_finds_nothing(one: LabContainer) -> None:
    with one.spawn(["sleep", "60"]) as caller, pinned(caller.host_pid) as pin:
        caller.kill()
        caller.wait()
        with pytest.raises(AgentError) as refused:
            find_process(pin, 1, (one.pid,))
    assert isinstance(refused.value, Unauthenticated)


def eventually_child(pid: int) -> int:
    while True:
        try:
            return child_of(pid)
        except ValueError:
            os.sched_yield()


def status_numbers(pid: int) -> tuple[int, ...]:
    with pinned(pid) as pin:
        return tuple(pin.status().namespace_pids)


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_an_unreadable_process_does_not_hide_another(
    first: bool, one: LabContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = one.pod.container("hidden")
    look = module._namespace

    def looking(process: PinnedProcess, levels_up: int) -> tuple[int, int]:
        if process.pid == side.pid:
            raise PermissionError
        return look(process, levels_up)

    monkeypatch.setattr(module, "_namespace", looking)
    order = (side.pid, one.pid) if first else (one.pid, side.pid)
    with one.spawn(["sleep", "60"]) as caller, pinned(caller.host_pid) as pin:
        process = find_process(pin, 1, order)
        assert process.pid == one.pid
        process.close()
        with pytest.raises(PermissionError):
            find_process(pin, 1, (side.pid,))
        caller.kill()
