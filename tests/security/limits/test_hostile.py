"""One pod does its worst to the agent; the others are answered, and its memory is bounded."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import raw_calls
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.measures import MAX_GROWTH, MEBIBYTE, memory, metric_total

pytestmark = pytest.mark.xdist_group("hostile")
CALLS_OF_POD = 256
UNREAD_BYTES = 4 * MEBIBYTE


@pytest.fixture(scope="module")
def node() -> Iterator[tuple[LabAgent, LabContainer, LabContainer]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        hostile = lab.pod("hostile").container("app")
        other = lab.pod("other").container("app", env={"WHO": "other"})
        lab.write_pod_list()
        flags = (
            f"--max-calls-per-pod={CALLS_OF_POD}",
            f"--max-send-buffer-bytes-per-pod={UNREAD_BYTES}",
        )
        yield lab.agent(*flags), hostile, other


def eventually(agent: LabAgent, name: str, least: float) -> None:
    deadline = time.monotonic() + 60
    while metric_total(agent, name) < least:
        assert time.monotonic() < deadline, f"{name} does not reach {least}"
        time.sleep(0.05)


@contextmanager
def asking_without_reading(
    agent: LabAgent,
    container: LabContainer,
    method: str,
    connections: int,
    env: list[bytes] | None = None,
) -> Iterator[None]:
    """Hold 64 calls on each connection; within, the agent has dealt with all of them."""
    dealt_with = metric_total(agent, "netutil_calls_total")
    argv = raw_calls.command("unread", method, str(connections), "64")
    hostile = container.spawn(argv, stdin=subprocess.PIPE, env=env)
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == b"asked\n"
        eventually(agent, "netutil_calls_total", dealt_with + 64 * connections)
        yield
    finally:
        hostile.communicate(timeout=30)
        eventually_not(agent)


def eventually_not(agent: LabAgent) -> None:
    deadline = time.monotonic() + 60
    while metric_total(agent, "netutil_calls_in_flight") or metric_total(
        agent, "netutil_send_buffer_bytes"
    ):
        assert time.monotonic() < deadline, "calls of a client that has exited are still held"
        time.sleep(0.05)


def test_calls_with_unread_answers_are_limited(
    node: tuple[LabAgent, LabContainer, LabContainer],
) -> None:
    agent, hostile, other = node
    with asking_without_reading(agent, hostile, "GetCPUInfo", connections=16):
        assert metric_total(agent, "netutil_calls_in_flight") == CALLS_OF_POD
        assert netutil(other, "whoami")["name"] == "other"
    assert netutil(hostile, "whoami")["name"] == "hostile"


def test_large_unread_answers_do_not_fill_the_memory(
    node: tuple[LabAgent, LabContainer, LabContainer],
) -> None:
    agent, hostile, other = node
    large = [b"PATH=/usr/bin:/bin", *(b"V%d=" % n + b"x" * 120_000 for n in range(14))]
    before = memory(agent)
    with asking_without_reading(agent, hostile, "GetEnv", connections=4, env=large):
        assert 0 < metric_total(agent, "netutil_send_buffer_bytes") <= UNREAD_BYTES
        labels = r'outcome="refused",reason="TOO_MANY_UNREAD_ANSWERS",stage="call"'
        refused = rf"netutil_errors_total\{{{labels}\}}"
        assert metric_total(agent, refused) > 0
        assert memory(agent) - before < MAX_GROWTH
        assert netutil(other, "env", "--pid", "1")["envs"]["WHO"] == "other"


def test_a_header_block_that_never_ends_is_cut_off(
    node: tuple[LabAgent, LabContainer, LabContainer],
) -> None:
    agent, hostile, other = node
    before = memory(agent)
    done = hostile.run(raw_calls.command("endless"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * MEBIBYTE
    assert memory(agent) - before < MAX_GROWTH
    assert netutil(other, "whoami")["name"] == "other"


def test_a_method_name_that_is_not_utf_8_ends_no_service(
    node: tuple[LabAgent, LabContainer, LabContainer],
) -> None:
    """One such request ended the server for every pod of the node, until a restart."""
    _, hostile, other = node
    done = hostile.run(raw_calls.command("path", b"/v1alpha.NetUti\xe2/GetCPUInfo".hex()))
    assert done.returncode == 0, done.stderr
    assert netutil(other, "whoami")["name"] == "other"


def test_headers_that_grpc_refuses_do_not_fill_the_log(
    node: tuple[LabAgent, LabContainer, LabContainer],
) -> None:
    """Three bytes of a request made a hundred of the log."""
    agent, hostile, other = node
    before = len(agent.stderr_text())
    for _ in range(5):
        done = hostile.run(raw_calls.command("misspelt"))
        assert done.returncode == 0, done.stderr
    assert netutil(other, "whoami")["name"] == "other"
    assert len(agent.stderr_text()) - before < 10_000
