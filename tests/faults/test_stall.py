"""A stalled event loop is logged with its stack, and liveness fails during the stall."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.faults.faulty import probe
from tests.support.lab import Lab, LabAgent
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-stall")]
# A signal's handler runs on the main thread, which is the loop's: as any call that blocks.
STALLING = """
import os, signal, sys, time
from netutil.agent.__main__ import main

def stand_still(number, frame):
    while not os.path.exists(sys.argv[0] + ".go"):
        time.sleep(0.05)

signal.signal(signal.SIGUSR1, stand_still)
sys.argv[0] = sys.argv.pop(1)
sys.exit(main())
"""


def check(agent: LabAgent) -> int:
    command = [sys.executable, "-m", "netutil.agent", "--check", f"--socket={agent.socket}"]
    return subprocess.run(command, check=False, timeout=60, stderr=subprocess.DEVNULL).returncode


def test_a_stalled_loop_is_logged_and_fails_liveness(lab: Lab) -> None:
    mark = lab.directory / "stall"
    command = [sys.executable, "-c", STALLING, str(mark)]
    agent = lab.agent("--event-loop-stall-seconds=1", "--log-format=json", command=command)
    assert probe(agent, "/healthz") == (200, "ok")
    os.kill(agent.pid, signal.SIGUSR1)
    try:
        ensure_reported(agent)
    finally:
        mark.with_name("stall.go").touch()
    eventually(lambda: probe(agent, "/healthz") == (200, "ok"))
    assert any("the event loop runs again" in line["message"] for line in lines(agent))
    assert check(agent) == 0
    assert metric(agent, "netutil_event_loop_stalls_total") == 1
    assert agent.stop() == 0


def ensure_reported(agent: LabAgent) -> None:
    _, said = eventually(lambda: (p := probe(agent, "/healthz"))[0] == 503 and p)
    assert re.fullmatch(r"the event loop has not turned for \d+ s", said)
    assert metric(agent, "netutil_event_loop_stalls_total") == 1
    assert metric(agent, "netutil_event_loop_lag_seconds") >= 1
    assert check(agent) == 1
    reports = [line for line in lines(agent) if "it is at" in line["message"]]
    assert len(reports) == 1
    assert "stand_still" in reports[0]["message"]
    assert reports[0]["level"] == "error"


def lines(agent: LabAgent) -> list[dict[str, str]]:
    return [json.loads(line) for line in agent.stderr_text().splitlines()]
