"""The wall clock jumps: nothing waits by it, and no file or list is believed or doubted by it."""

from __future__ import annotations

import ast
import os
import signal
import sys
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.pods.sources.file import FileSource

from tests.faults.faulty import asking, probe
from tests.support.fakes.kubelet import KubeletDouble, list_json, pod_json, pods, serving
from tests.support.lab import Lab
from tests.support.nodes.watching import watching
from tests.support.repository import ROOT
from tests.support.waiting import eventually

DAY_SECONDS = 86_400
# The wall clock of one process cannot be set, so it is replaced where the agent asks for it.
JUMPING = """
import datetime, signal, sys, time

offsets = list(map(float, sys.argv.pop(1).split(",")))
real, offset = time.time, 0.0
time.time = lambda: real() + offset

class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)

def jump(number, frame):
    global offset
    offset = offsets.pop(0)

signal.signal(signal.SIGUSR1, jump)
from netutil.agent import lifecycle
from netutil.agent.__main__ import main
from netutil.agent.pods import index, polling
from netutil.agent.watch import stream

for module in (index, polling, stream):
    module.datetime = Clock
sys.argv[0] = "netutil-agent"
sys.exit(main())
"""
WALL = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
SHOWN_OR_COMPARED_WITH_THE_CLOCK = {
    "agent/identity/process.py",  # a process's start, compared with a container's
    "agent/collect/caller.py",  # a call's time, compared with the list's: a jump costs one list
    "agent/kubelet/podresources/directory.py",  # compared with a container's start
    "agent/pods/http/apiserver_login.py",  # when the answer of an exec plugin expires
    "agent/pods/sources/reflector.py",  # observed_at
    "agent/pods/sources/file.py",  # the age of a file; a jump makes it be read again
    "agent/pods/index.py",  # of a container without a start time
    "agent/pods/polling.py",  # observed_at
    "agent/kubelet/podsapi/source.py",  # observed_at
    "agent/observability/call_stats.py",  # time of the last refusal, for the operator
    "agent/admin/checks.py",  # the diagnosis compares the clock with the kubelet's
    "agent/admin/explain.py",  # the age of the list, for the operator
    "agent/facts/device_metadata.py",  # the age of a file; a jump makes it be read again
    "client/cli/node_commands.py",  # ages in tables
    "client/cli/node_live.py",  # ages in tables
    "client/cli/node_pods.py",  # ages in tables
    "agent/watch/stream.py",  # observed_at
}


def asks_the_wall_clock(path: Path) -> bool:
    """Return whether a module calls a function that a jump of the clock changes."""
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in WALL
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_no_deadline_is_of_the_wall_clock() -> None:
    modules = [*(ROOT / "agent").rglob("*.py"), *(ROOT / "client").rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in modules if asks_the_wall_clock(path)}
    assert len(modules) > 100
    assert found == SHOWN_OR_COMPARED_WITH_THE_CLOCK


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_file_is_read_again_after_the_clock_jumped(
    jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pods.json"
    path.write_bytes(list_json(pod_json("before")))
    source = FileSource(str(path))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    assert [pod.metadata.name for pod in source.fetch()] == ["before"]
    fresh = tmp_path / "fresh"
    fresh.write_bytes(list_json(pod_json("after")))
    os.utime(fresh, (0, 0))
    fresh.replace(path)
    assert [pod.metadata.name for pod in source.fetch()] == ["after"]


@pytest.mark.root
@pytest.mark.xdist_group("faults-clock")
def test_an_agent_whose_clock_jumps_still_reads_and_answers() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    offsets = (DAY_SECONDS, -DAY_SECONDS)
    with Lab() as lab, ExitStack() as stack:
        web = lab.pod("web").container("app")
        double = stack.enter_context(serving(KubeletDouble(pods(*lab.pod_list()["items"]))))
        agent = lab.agent(
            f"--kubelet-url={double.url}",
            "--kubelet-token=",
            "--pod-refresh=0.3",
            pod_source="kubelet",
            command=(sys.executable, "-c", JUMPING, ",".join(map(str, offsets))),
        )
        asks, watcher = stack.enter_context(asking(web)), stack.enter_context(watching(web))
        assert asks.ask("pod")["said"] == "web"
        seen = observed_at(watcher.next())
        for number, offset in enumerate(offsets):
            os.kill(agent.pid, signal.SIGUSR1)
            late = lab.pod(f"late-{number}").container("app")
            lab.pods[0].annotations["example.com/round"] = str(number)
            double.answer = pods(*lab.pod_list()["items"])
            news = observed_at(watcher.next())
            assert abs(news - seen - offset) < DAY_SECONDS / 2  # its clock did jump
            assert asks.ask("pod")["said"] == "web"
            with asking(late) as late_client:
                assert late_client.ask("pod")["said"] == f"late-{number}"
            fetched = len(double.requests)
            eventually(lambda: len(double.requests) > fetched + 2)  # noqa: B023 - at once
        assert probe(agent, "/healthz") == (200, "ok")
        assert "Traceback" not in agent.stderr_text()


def observed_at(answer: dict[str, Any]) -> float:
    """Return the time of a snapshot by the agent's clock."""
    return datetime.fromisoformat(answer["observed_at"]).timestamp()
