"""64 clients of 8 pods at once: no wrong answer, no error, no growth."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.agent import LabAgent
from tests.lab.lab import Lab
from tests.lab.pod import LabContainer

SECONDS = float(os.environ.get("NETUTIL_SOAK_SECONDS", "30"))
PODS, CLIENTS_PER_POD = 8, 8
# Python's allocator and gRPC's arenas fill up in the first calls; growth is judged after.
GROWTH = 1.15

CLIENTS = """
import sys, threading, time
from netutil.client import Client
name, clients, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
wrong, calls = [], [0] * clients
def ask(i):
    with Client(timeout_seconds=20) as client:
        while time.monotonic() < until:
            pod, env = client.pod().name, client.variable("WHO", pid=1)
            if (pod, env) != (name, name):
                wrong.append((pod, env))
            client.cpu(); client.network_status(); calls[i] += 4
def run(i):
    try:
        ask(i)
    except Exception as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
[t.start() for t in threads]; [t.join() for t in threads]
print(sum(calls), min(calls), wrong[:3])
sys.exit(bool(wrong))
"""


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LabAgent, list[LabContainer]]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    # Coverage keeps data of its own in the agent, which would be measured too.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    with Lab() as lab:
        containers = [
            lab.pod(f"pod-{number}").container("app", env={"WHO": f"pod-{number}"})
            for number in range(PODS)
        ]
        lab.write_pod_list(lab.directory / "pods.json")
        yield lab.agent(), containers


def _anonymous_bytes(pid: int) -> int:
    """Return the memory that is the agent's alone; file pages depend on who else maps them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss_Anon line")


def _run(containers: list[LabContainer], seconds: float) -> int:
    runs = [
        container.spawn(
            [sys.executable, "-c", CLIENTS, f"pod-{number}", str(CLIENTS_PER_POD), str(seconds)],
            stdout=subprocess.PIPE,
        )
        for number, container in enumerate(containers)
    ]
    calls = 0
    for run in runs:
        output, errors = run.communicate(timeout=seconds + 60)
        out = output.decode()
        assert run.returncode == 0, out + errors.decode()
        total, least, _ = out.split(" ", 2)
        assert int(least) > 0
        calls += int(total)
    return calls


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("soak")
def test_64_clients_of_8_pods_get_right_answers_and_memory_stays_flat(
    pods: tuple[LabAgent, list[LabContainer]],
) -> None:
    agent, containers = pods
    _run(containers, SECONDS / 5)
    before = _anonymous_bytes(agent.pid)
    descriptors = len(os.listdir(f"/proc/{agent.pid}/fd"))
    calls = _run(containers, SECONDS)
    after = _anonymous_bytes(agent.pid)
    print(f"{calls} calls, memory {before / 2**20:.1f} -> {after / 2**20:.1f} MiB (anonymous)")
    assert after <= before * GROWTH
    deadline = time.monotonic() + 10
    while len(os.listdir(f"/proc/{agent.pid}/fd")) > descriptors + 5:
        assert time.monotonic() < deadline, "descriptors of ended clients are still open"
        time.sleep(0.05)
