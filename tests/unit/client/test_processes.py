"""`netutil node pod --processes` and `node top --processes`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.client import NodeClient
from netutil.client.cli.render.processes import Placement, exclusive, processes, table
from netutil.client.cli.render.tables import Style, render
from netutil.client.cpulist import format_cpulist
from netutil.client.models.processes import ProcessesMerger, ProcessesPart, ProcessReading
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.support.answers import node as node_answers
from tests.support.fakes.agent import FakeAgent
from tests.unit.client.command import Ended

Netutil = Callable[..., Ended]
NOW = datetime(2026, 1, 31, 13, tzinfo=UTC)


def reading(*messages: node_pb2.ListProcessesResponse) -> ProcessReading:
    merger = ProcessesMerger()
    for message in messages:
        merger.add(result(ProcessesPart, message))
    return merger.reading()


def readings() -> tuple[ProcessReading, ProcessReading]:
    before, now = node_answers.processes()
    return reading(*before), reading(*now)


def test_the_threads_of_a_process_come_together() -> None:
    _, now = readings()
    web, db = now.pods
    assert [one.process.pid for one in web.processes] == [4711, 4720]
    assert [one.tid for one in web.processes[0].process.threads] == [4712, 4713]
    assert web.processes[0].read_at_seconds == 102.0
    assert (web.threads_truncated, db.processes_truncated) == (True, True)


def test_the_use_of_cpus_is_between_two_readings() -> None:
    found = processes(*readings(), "name")
    server, new = found.processes
    assert server.cpu_percent == pytest.approx(50.0)
    assert [one.cpu_percent for one in server.threads] == [pytest.approx(25.0), 0.0]
    assert new.cpu_percent is None  # not there before


def test_a_reused_number_has_no_use_of_cpus() -> None:
    before, now = (
        reading(
            node_answers.exclusive_cpus(),
            node_answers.processes_part(at, node_answers.process(4711, 5.0, start_ticks=start)),
        )
        for at, start in ((100.0, 1), (102.0, 2))
    )
    (one,) = processes(before, now, "cpu").processes
    assert one.cpu_percent is None


def test_cpus_are_marked_with_their_owner() -> None:
    server = processes(*readings(), "name").processes[0]
    assert server.placement.cpu_exclusive_of == "default/db-0/db"
    assert server.placement.may_use is not None
    (other,) = server.placement.may_use  # CPU 1 is its own container's
    assert (other.container, other.cpus) == ("default/db-0/db", "2-3")
    thread = server.threads[0].placement
    assert (thread.cpu_exclusive_of, thread.may_use) == ("default/web-0/app", ())


def test_nothing_is_marked_where_exclusive_cpus_are_not_known() -> None:
    error = netutil_pb2.PartError(part="exclusive_cpus", reason="X", message="No kubelet.")
    now = reading(
        node_pb2.ListProcessesResponse(errors=[error]),
        node_answers.processes_part(100.0, node_answers.process(4711, 5.0)),
    )
    found = processes(None, now, "cpu")
    (one,) = found.processes
    assert (one.placement.cpu_exclusive_of, one.placement.may_use) == (None, None)
    shown = table(found, NOW, None, None, pods=True)
    assert shown.rows[0][-1] == "?"
    assert "exclusive_cpus not known: No kubelet. [X]" in shown.notes


def test_an_agent_that_may_not_read_a_part_reports_it() -> None:
    part = node_answers.process(4711, 5.0, allowed_cpus="", error="denied")
    part.ClearField("cpu")
    now = reading(node_answers.exclusive_cpus(), node_answers.processes_part(100.0, part))
    found = processes(None, now, "cpu")
    assert found.processes[0].placement == Placement("", None, None, None)
    assert table(found, NOW, None, None, pods=True).rows[0][-1] == "denied"


CPUS = st.sets(st.integers(0, 70), max_size=20)


@given(st.lists(CPUS, max_size=5), CPUS, st.none() | st.integers(0, 70))
def test_marks_are_the_intersections_of_the_sets(
    owners: list[set[int]], allowed: set[int], cpu: int | None
) -> None:
    taken: set[int] = set()
    exclusive_sets: list[set[int]] = []
    for owner in owners:
        exclusive_sets.append(owner - taken)
        taken |= owner
    containers = [
        node_pb2.ExclusiveContainer(
            namespace="default", pod=f"p{number}", container="app", cpus=format_cpulist(cpus)
        )
        for number, cpus in enumerate(exclusive_sets)
    ]
    first = node_pb2.ListProcessesResponse(
        exclusive_cpus=node_pb2.ExclusiveCPUs(containers=containers)
    )
    process = node_answers.process(4711, 5.0, allowed_cpus=format_cpulist(allowed))
    process.ClearField("cpu")
    if cpu is not None:
        process.cpu = cpu
    now = reading(first, node_answers.processes_part(100.0, process, pod="p0"))
    placement = processes(None, now, "cpu").processes[0].placement
    expected = {
        f"default/p{number}/app": format_cpulist(cpus & allowed)
        for number, cpus in enumerate(exclusive_sets)
        if cpus & allowed and number
    }
    found = placement.may_use
    assert (None if found is None else {one.container: one.cpus for one in found}) == (
        expected if allowed else None
    )
    numbers = [n for n, cpus in enumerate(exclusive_sets) if cpu in cpus]
    name = f"default/p{numbers[0]}/app" if numbers else ""
    assert placement.cpu_exclusive_of == (None if cpu is None else name)


@pytest.mark.parametrize(
    ("order", "pids"),
    [("cpu", [4711, 4720]), ("memory", [4720, 4711]), ("threads", [4711, 4720])],
)
def test_processes_are_ordered(order: str, pids: list[int]) -> None:
    assert [one.pid for one in processes(*readings(), order).processes] == pids


def test_a_table_has_a_line_for_each_thread(netutil: Netutil, agent: FakeAgent) -> None:
    done = netutil("node", "pod", "default/web-0", "--threads", "--interval", "1ms")
    title, headers, server, worker, other, new, *notes = done.out.splitlines()
    assert title == "2 processes with 4 threads"
    assert headers.split()[:4] == ["CONTAINER", "PID", "INSIDE", "NAME"]
    assert server.split()[:7] == ["app", "4711", "11", "server", "sleeping", "2", "50.0"]
    assert server.endswith("ON 2 of default/db-0/db, may use 2-3 of default/db-0/db")
    assert worker.split() == [
        "app",
        "4711/4712",
        "12",
        "worker",
        "running",
        "25.0",
        "1",
        "1",
        "own",
    ]
    assert other.split()[1] == "4711/4713" and new.split()[1] == "4720"
    assert "(default/web-0 has more threads than the agent reads)" in notes
    assert "(default/db-0 has more processes than the agent reads)" in notes
    assert [(one.name, one.threads) for one in agent.asked] == [("web-0", True)] * 2


def test_top_lists_the_processes_of_all_pods(netutil: Netutil, agent: FakeAgent) -> None:
    out = netutil("node", "top", "--processes", "--once", "--interval", "1ms").out
    assert out.splitlines()[2].startswith("default/web-0  app")
    assert [(one.namespace, one.name, one.threads) for one in agent.asked] == [("", "", False)] * 2


def test_the_document_has_what_the_table_has(netutil: Netutil, agent: FakeAgent) -> None:
    words = ("node", "top", "--threads", "--once", "--interval", "1ms", "-o", "json")
    found = json.loads(netutil(*words).out)
    server = found["processes"][0]
    assert (server["pid"], server["cpu_percent"]) == (4711, 50.0)
    assert server["threads"][0]["placement"]["cpu_exclusive_of"] == "default/web-0/app"
    assert [one["pod"] for one in found["gaps"]] == ["web-0", "db-0"]
    agent.processes = node_answers.processes()
    words = ("node", "pod", "default/web-0", "--processes", "--interval", "1ms", "-o", "yaml")
    assert "cpu_exclusive_of: default/db-0/db" in netutil(*words).out


@pytest.mark.parametrize(
    "words",
    [
        ("node", "top", "--sort", "memory"),
        ("node", "top", "--processes", "--sort", "latency"),
        ("node", "pod", "default/web-0", "--sort", "cpu"),
    ],
)
def test_an_order_is_of_what_is_shown(netutil: Netutil, words: tuple[str, ...]) -> None:
    ended = netutil(*words)
    assert ended.code == 2
    assert "processes" in ended.err


@pytest.mark.usefixtures("agent")
def test_a_client_returns_one_list(agent: FakeAgent) -> None:
    with NodeClient(agent.path) as client:
        assert client.processes("default", "web-0") == readings()[0]


def test_a_long_table_is_cut_to_the_terminal() -> None:
    found = processes(*readings(), "cpu")
    shown = table(found, NOW, 1, 80, pods=True)
    assert len(shown.rows) == 1 and "not shown: 3" in shown.notes
    assert "STATE" not in shown.headers
    lines = render([shown], Style(width=80)).splitlines()
    assert len(lines[1]) <= 80


def test_a_name_cannot_steer_the_terminal(netutil: Netutil, agent: FakeAgent) -> None:
    hostile = node_answers.process(4711, 5.0, name="\x1b[2J\nroot")
    agent.processes.clear()
    agent.processes.append([node_answers.processes_part(1.0, hostile)])
    out = netutil("node", "top", "--processes", "--once", "--interval", "1ms").out
    assert "\x1b" not in out and "\\x1b[2J\\nroot" in out


def test_many_owners_are_one_cell() -> None:
    owners: Any = [
        node_pb2.ExclusiveContainer(namespace="a", pod=str(n), container="c", cpus=str(n))
        for n in range(3)
    ]
    first = node_pb2.ListProcessesResponse(exclusive_cpus=node_pb2.ExclusiveCPUs(containers=owners))
    one = node_answers.process(4711, 5.0, cpu=9)
    now = reading(first, node_answers.processes_part(1.0, one))
    placement = processes(None, now, "cpu").processes[0].placement
    assert exclusive(placement, "default/web-0/app") == "may use 0 of a/0/c and of 2 more"
