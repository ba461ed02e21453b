"""A process whose first thread has ended is answered like any other, by every method."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netutil.client import NodeClient
from netutil.client.rpc import requests

from tests.support.lab import Lab, LabContainer, first_thread
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import LabProcess, inside_pid
from tests.support.nodes.client_driver import EVERYTHING, POD_CLIENT, Call, Outcomes, task
from tests.support.nodes.watching import SCRIPT
from tests.support.processes import READY, become, wait_for_state

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("first-thread")]

RUNNER = first_thread.__file__
USER = 12345
ALL: tuple[Call, ...] = (*EVERYTHING, ("GetResource", {}))
WITHOUT_KUBELET = ("UNAVAILABLE", "POD_RESOURCES_UNAVAILABLE")
OF_ITSELF = 'task["calls"] = [[m, {**f, "pid": str(os.getpid())}] for m, f in task["calls"]]'
CHANGES = frozenset(("observed_at", "observedAt", "counters", "free_bytes", "free_pages", "usage"))
"""What may differ between two calls in any case."""


@dataclass
class Node:
    lab: Lab
    app: LabContainer
    side: LabContainer


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Lab() as lab:
        pod = lab.pod("web", labels={"tier": "front"}, share_process_namespace=True)
        app = pod.container("app", env={"WHO": "app", "PATH": "/usr/bin:/bin"}, cpus="0")
        side = pod.container("side", env={"WHO": "side", "PATH": "/usr/bin:/bin"}, cpus="0-1")
        lab.agent("--pod-resources=/nonexistent/kubelet.sock")
        yield Node(lab, app, side)


def asked(container: LabContainer, *calls: Call, runner: bool, before: str = "") -> Outcomes:
    """Ask from a new process, whose first thread has ended if `runner`."""
    argv = [sys.executable, *([RUNNER] if runner else []), POD_CLIENT]
    done = container.run(argv, input=task(calls, before=before), timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return Outcomes.from_output(done.stdout)


def steady(answer: Any) -> Any:
    """Return an answer without what two calls need not agree in."""
    if isinstance(answer, dict):
        return {key: steady(value) for key, value in answer.items() if key not in CHANGES}
    return [steady(one) for one in answer] if isinstance(answer, list) else answer


def assert_same(got: Outcomes, expected: Outcomes) -> None:
    """Each call was answered, as a process was answered whose first thread runs."""
    for (method, _), one, other in zip(ALL, got.calls, expected.calls, strict=True):
        assert one.refusal == other.refusal, method
        assert steady(one.answer) == steady(other.answer), method
    refusals = dict(zip((method for method, _ in ALL), (c.refusal for c in got.calls), strict=True))
    assert refusals.pop("GetResource")[0] == "UNAVAILABLE"  # no kubelet here
    assert set(refusals.values()) == {("OK", "")}
    env, cpu, *_ = got.calls
    assert env.answer["envs"]["WHO"] == "app"
    assert cpu.answer["cpuset"] == "0"


@contextmanager
def waiting(node: Node, *runner: str, script: str = "") -> Iterator[LabProcess]:
    """A process in the container `app` that runs a script, says when it is ready, and waits."""
    path = node.lab.directory / "wait.py"
    path.write_text(f"{script}\n{READY}")
    argv = [sys.executable, *runner, str(path)]
    with node.app.spawn(argv, stdin=subprocess.PIPE, stderr=None) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process
        process.kill()


@contextmanager
def without_first_thread(node: Node, script: str = "") -> Iterator[LabProcess]:
    with waiting(node, RUNNER, script=script) as process:
        wait_for_state(process.host_pid, "Z")
        yield process


def test_it_asks_for_itself(node: Node) -> None:
    got = asked(node.app, *ALL, runner=True)
    assert_same(got, asked(node.app, *ALL, runner=False))


def test_it_asks_for_itself_by_its_own_number(node: Node) -> None:
    got = asked(node.app, *ALL, runner=True, before=OF_ITSELF)
    assert_same(got, asked(node.app, *ALL, runner=False, before=OF_ITSELF))


def test_it_asks_for_another_process(node: Node) -> None:
    calls = [(method, fields | {"pid": str(node.app.pid_inside)}) for method, fields in ALL]
    got = asked(node.app, *calls, runner=True)
    assert_same(got, asked(node.app, *calls, runner=False))


@pytest.mark.parametrize("caller", ["app", "side"])
def test_another_process_asks_for_it(node: Node, caller: str) -> None:
    container: LabContainer = getattr(node, caller)
    with without_first_thread(node) as ended, waiting(node) as whole:
        of_ended, of_whole = (
            [(method, fields | {"pid": str(inside_pid(one.host_pid))}) for method, fields in ALL]
            for one in (ended, whole)
        )
        got = asked(container, *of_ended, runner=False)
        assert_same(got, asked(container, *of_whole, runner=False))


def test_its_environment_is_for_the_user_that_its_threads_run_as(node: Node) -> None:
    """Its first thread ended as root, and the kernel gives the files of one that ended to root."""
    with without_first_thread(node, become(USER, USER)) as ended:
        assert "Uid:\t0\t0\t0\t0" in Path(f"/proc/{ended.host_pid}/status").read_text()
        call = ("GetEnv", {"pid": str(inside_pid(ended.host_pid))})
        (got,) = asked(node.app, call, runner=False, before=become(USER, USER)).calls
        (refused,) = asked(node.app, call, runner=False).calls
    assert got.code == "OK", got.sentence
    assert got.answer["envs"]["WHO"] == "app"
    assert refused.refusal == ("PERMISSION_DENIED", "ENVIRONMENT_NOT_READABLE")


def test_it_watches(node: Node) -> None:
    path = node.lab.directory / "watch.py"
    path.write_text(SCRIPT)
    argv = [sys.executable, RUNNER, str(path), "with", "fast"]
    with node.app.spawn(argv, stderr=None) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    first = json.loads(line)["snapshot"]
    assert first["environment"]["envs"]["WHO"] == "app"
    assert first["pod"]["container_name"] == "app"
    assert first["cpu"]["affinity"] == "0"


def test_an_explanation_agrees_with_the_calls(node: Node) -> None:
    with (
        without_first_thread(node) as ended,
        NodeClient(node.lab.admin_socket, timeout_seconds=20) as client,
    ):
        answer = client.call(requests.explanation(ended.host_pid))
        calls = client.call(requests.described_pod("default", "web"))
    assert (answer.answered, answer.pod, answer.container) == (True, "default/web", "app")
    (process,) = (step for step in answer.steps if step.name == "process")
    assert "its first thread has ended; thread " in process.found[1]
    (app,) = (one for one in calls.containers if one.container.name == "app")
    assert ended.host_pid in app.pids


def test_the_command_is_answered(node: Node) -> None:
    argv = [sys.executable, RUNNER, "-m", "netutil.client", "whoami", "-o", "json"]
    done = node.app.run(argv)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["container_name"] == "app"
