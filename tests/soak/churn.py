"""Containers that come, ask, and go: what the agent holds afterwards is what it held before.

`python -m tests.soak.churn [CONTAINERS]` (2000): each is a real process in a real cgroup, with its
own network namespace, and calls GetAll, GetEnv, Watch and one call that is refused. Then ten
minutes pass by the agent's clock. Exit 1 if memory has grown by more than 2 MiB since the warm-up,
or if a descriptor or anything that is counted is held that was not before. Needs root.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.soak.aged_agent import STEP_SECONDS
from tests.support.lab import Lab, LabAgent
from tests.support.lab.processes import wait_exited
from tests.support.nodes.measures import metrics_text
from tests.support.repository import ROOT

CONTAINERS, WARM_UP = 2000, 200
GROWTH_MIB = 2.0
PASSING_SECONDS = 600
_CONTAINERS_PER_POD = 2
_PODS_AT_ONCE = 6
_PORTIONS = 4
_SETTLE_SECONDS = 60.0
_HELD = {
    "netutil_held_entries",
    "netutil_open_connections",
    "netutil_calls_in_flight",
    "netutil_streams",
    "netutil_send_buffer_bytes",
    "netutil_watchers",
    "netutil_tasks",
}
_SWEEPS = "netutil_held_sweeps_total"
_HERE = Path(__file__).parent
_COMMAND = (sys.executable, str(_HERE / "aged_agent.py"))


@dataclass(frozen=True, slots=True)
class Held:
    """The resources of the agent: memory in MiB, descriptors, and what it counts, by name."""

    memory_mib: float
    descriptors: int
    counts: dict[str, int]


class Churn:
    """An agent of a lab whose containers come and go."""

    def __init__(self, lab: Lab) -> None:
        self.failures: list[str] = []
        self._lab = lab
        self._names = iter(range(1_000_000))
        self._lock = threading.Lock()
        self.agent: LabAgent = lab.agent("--pod-refresh=1", command=_COMMAND)

    def pass_by(self, containers: int) -> None:
        """Return when so many containers have started, called and ended."""
        with ThreadPoolExecutor(_PODS_AT_ONCE) as pool:
            for _ in pool.map(lambda _: self._one_pod(), range(containers // _CONTAINERS_PER_POD)):
                pass

    def age(self, seconds: int = PASSING_SECONDS) -> None:
        """Let time pass for the agent, from one of its sweeps to the next."""
        for _ in range(int(seconds / STEP_SECONDS)):
            before = self._metric(_SWEEPS)
            os.kill(self.agent.pid, signal.SIGUSR1)
            deadline = time.monotonic() + _SETTLE_SECONDS
            while self._metric(_SWEEPS) == before and time.monotonic() < deadline:
                time.sleep(0.05)

    def held(self, *, trimmed: bool = False) -> Held:
        """Return what the agent holds; `trimmed` gives free memory back first."""
        if trimmed:
            os.kill(self.agent.pid, signal.SIGUSR2)
            time.sleep(0.5)
        process = Path("/proc", str(self.agent.pid))
        rollup = (process / "smaps_rollup").read_text(encoding="ascii")
        memory = re.search(r"^Anonymous: +(\d+) kB", rollup, re.MULTILINE)
        assert memory is not None
        descriptors = psutil.Process(self.agent.pid).num_fds()
        return Held(round(int(memory[1]) / 1024, 2), descriptors, dict(self._counts()))

    def settled(self, before: Held | None = None) -> Held:
        """Return what the agent holds once no connection is open and it holds what it did before.

        A machine that is busy may take some time for that; what it holds then is returned.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            counts = self.held().counts
            if not counts["netutil_open_connections"] and (
                before is None or counts == before.counts
            ):
                break
            time.sleep(0.1)
        return self.held(trimmed=True)

    def _one_pod(self) -> None:
        with self._lock:
            name = f"passing-{next(self._names)}"
        pod = self._lab.pod(name, eth0=False)
        self._write_pod_list()  # as a kubelet, which knows a pod before it starts its containers
        environment = {"PYTHONPATH": str(ROOT), "WHO": name, "FILLER": "x" * 2000}
        argv = [sys.executable, "-S", str(_HERE / "passing_client.py"), name]
        containers = [
            pod.container(f"app-{number}", env=environment, argv=argv)
            for number in range(_CONTAINERS_PER_POD)
        ]
        self._write_pod_list()
        for container in containers:
            wait_exited(container.pid, _SETTLE_SECONDS)
            said = container.log.read_text().strip()
            if said != "ok":
                self.failures.append(f"{name}: {said[-300:]}")
            container.log.unlink()
        pod.delete()
        self._lab.pods.remove(pod)
        self._write_pod_list()

    def _write_pod_list(self) -> None:
        with self._lock:  # or an older list might replace a newer one
            self._lab.write_pod_list()

    def _metric(self, name: str) -> float:
        return next(float(value) for found, value in self._metrics() if found == name)

    def _counts(self) -> Iterator[tuple[str, int]]:
        """Yield what is held and open, by the metric's name and label."""
        for name, value in self._metrics():
            if name.partition("{")[0] in _HELD:
                yield name, int(float(value))

    def _metrics(self) -> Iterator[tuple[str, str]]:
        for line in metrics_text(self.agent).splitlines():
            if line.startswith("netutil_"):
                name, _, value = line.rpartition(" ")
                yield name, value


def _show(what: str, held: Held) -> None:
    entries = sum(n for name, n in held.counts.items() if name.startswith("netutil_held"))
    print(
        f"{what:28} {held.memory_mib:>8.2f} MiB {held.descriptors:>5} descriptors"
        f" {entries:>6} entries",
        flush=True,
    )


def _run(containers: int) -> list[str]:
    """Print the curve of memory; return what went wrong."""
    with Lab() as lab:
        churn = Churn(lab)
        churn.pass_by(WARM_UP)
        _show(f"{WARM_UP} containers (warm-up)", churn.settled())
        churn.age()
        before = churn.settled()
        _show("ten minutes later", before)
        for number in range(1, _PORTIONS + 1):
            churn.pass_by(containers // _PORTIONS)
            _show(f"{containers // _PORTIONS * number} containers", churn.settled())
        churn.age()
        after = churn.settled(before)
        _show("ten minutes later", after)
    return churn.failures + grown(before, after)


def grown(before: Held, after: Held) -> list[str]:
    """Return what is held that was not before, one sentence each."""
    found = [
        f"{name}: {before.counts.get(name)} before, {number} after"
        for name, number in after.counts.items()
        if number != before.counts.get(name)
    ]
    if after.descriptors != before.descriptors:
        found.append(f"descriptors: {before.descriptors} before, {after.descriptors} after")
    if after.memory_mib > before.memory_mib + GROWTH_MIB:
        found.append(f"memory: {before.memory_mib} MiB before, {after.memory_mib} MiB after")
    return found


def main() -> int:
    """Return 1 if anything went wrong."""
    failures = _run(int(sys.argv[1]) if len(sys.argv) > 1 else CONTAINERS)
    for failure in failures[:20]:
        print(f"FAILED: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
