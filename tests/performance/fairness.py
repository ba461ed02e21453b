"""The cost for the other pods while one pod attacks.

One agent, three pods that call at a steady rate, and a hostile one. For each run of an attack: a
quiet phase, the attack, a quiet phase; the quiet pods' p99 in each, on a kept connection and on a
new one, and what the agent holds and takes before, during and after. Needs root.

The agent is judged here and not the scheduler, on two cores that others use too:

- The agent alone has the second CPU; the pods, hostile and quiet, and what measures share the
  first. So a pod takes the time of the agent only by its own calls.
- On the first, the hostile pod has the least weight that a pod can have (as a pod without a CPU
  request has). It gets all the time that the quiet ones leave, which is most: it has no quota, and
  sends as fast as a core lets it. They are real-time tasks (sched(7), SCHED_FIFO) where they may
  be: else each wake of theirs would wait for a slice of the hostile pod's.
- The lab as a whole outweighs the rest of the machine.
- What an echo of one byte on the pods' CPU takes longer during the attack is not the agent's doing.
- How long the agent's threads waited for a CPU is printed: where that is much, another program had
  the agent's CPU, and the figures of that run are its doing.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from tests.performance.outcome import Call, Held, Outcome, Phase, Usual
from tests.support.attacks.commands import attack
from tests.support.lab import Lab, LabAgent, LabContainer, LabProcess
from tests.support.lab.agent import COMMAND, AgentFailed
from tests.support.repository import ROOT

T = TypeVar("T")
QUIET_PODS = 3
CALL_SECONDS = {"kept": 0.05, "new": 0.05, "echo": 0.05}
"""So that a phase of five seconds has 300 of each kind: of 75 the 99th percentile is the worst."""
SETTLE_SECONDS = 1.0
_AGENTS_CPU, _PODS_CPU = "1", "0"
_PROBE_SECONDS = 0.25
_QUIET_TRIES = 5
_LOG_CHARACTERS = 4000
_REALTIME_MICROSECONDS = 100_000
"""Of each second, for one pod. Its callers need some thousands."""
_ENV = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT)}


def held_by(pid: int) -> Held:
    """Return what a process holds: proportional memory, descriptors, threads (proc(5)).

    Holds the memory lock of the process meanwhile: a reader of this that waits for a CPU, as
    this program does beside an attack, keeps the process from growing.
    """
    return _held(pid, psutil.Process(pid).memory_full_info().pss)


def _held(pid: int, pss_bytes: int) -> Held:
    process = psutil.Process(pid)
    return Held(pss_bytes, process.num_fds(), process.num_threads())


def _resident_bytes(pid: int) -> int:
    """Return the resident set size, which takes no lock (proc_pid_statm(5))."""
    return int(psutil.Process(pid).memory_info().rss)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Return the CPU time that a process has taken, and that its present threads have waited for.

    psutil has no waiting: sched-stats.rst, /proc/<pid>/schedstat: the second field.
    """
    times = psutil.Process(pid).cpu_times()
    waited = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            waited += int((task / "schedstat").read_text().split()[1])
    return times.user + times.system, waited / 1e9


class QuietPods:
    """The callers and what they have written down so far."""

    def __init__(self, containers: Sequence[LabContainer]) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()
        self._processes = [
            one.spawn(_module("load_generator", kind, str(seconds)), env=_ENV, stderr=None)
            for one in containers
            for kind, seconds in CALL_SECONDS.items()
        ]
        self._readers = [
            threading.Thread(target=self._read, args=(process,), daemon=True)
            for process in self._processes
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, process: LabProcess) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            kind, start, took = line.decode().split()
            seconds = math.inf if took == "failed" else float(took)
            with self._lock:
                self._calls.append(Call(kind, float(start), seconds))

    def between(self, start: float, end: float) -> list[Call]:
        """Return the calls that began in a span of CLOCK_MONOTONIC; forget those before it."""
        with self._lock:
            self._calls = [call for call in self._calls if start <= call.start]
            return [call for call in self._calls if call.start < end]

    def wait_for(self, calls: int) -> None:
        deadline = time.monotonic() + 60
        while len(self._calls) < calls:
            assert time.monotonic() < deadline, "the quiet pods do not call"
            time.sleep(0.05)

    def close(self) -> None:
        for process, reader in zip(self._processes, self._readers, strict=True):
            process.kill()
            process.wait()
            reader.join()


def _weigh(directories: Sequence[Path], shares: int) -> None:
    """Set a cgroup's CPU weight; `shares` as v1 counts them, 1024 is usual."""
    for directory in directories:
        for name, value in (("cpu.shares", shares), ("cpu.weight", max(1, shares * 100 // 1024))):
            if (directory / name).exists():
                (directory / name).write_text(str(min(value, 10_000) if "w" in name else value))


class AttackEnded(Exception):
    """The attacking program ended by itself, so nothing was measured."""


@dataclass
class Bench:
    """A lab with the quiet pods calling."""

    agent: LabAgent
    hostile: LabContainer
    quiet: QuietPods
    seconds: float
    _last: tuple[float, Phase] | None = None
    """When the last quiet phase ended (CLOCK_MONOTONIC), and what it showed."""
    _usual: Usual = field(default_factory=Usual)

    def attack(self, name: str, argv: Sequence[str]) -> Outcome:
        """Run one attack, a command in the hostile pod. Raises AgentFailed, AttackEnded.

        Where the quiet phase after another run has just ended, it is the one before this run.
        """
        quiet = self._quiet_phase()
        process = self.hostile.spawn(argv, env=_ENV, stdout=None, stderr=None)
        try:
            time.sleep(SETTLE_SECONDS)
            attacked = self._phase()
            if process.poll() is not None:
                raise AttackEnded(f"{name} ended by itself, with {process.poll()}")
        finally:
            process.kill()
            process.wait()
        time.sleep(SETTLE_SECONDS)
        self.ask()
        again = self._phase()
        self._usual.add(again)
        self._last = time.monotonic(), again
        return Outcome(name, quiet, attacked, again)

    def ask(self) -> None:
        """Have the hostile pod ask for its CPUs.

        The agent holds a container's cgroup files for five minutes after the last question: without
        it they would be released in one run, and be left of another.
        """
        asked = self.hostile.run(attack("cgroup_churn", "ask"), env=_ENV)
        assert not asked.returncode, asked.stderr.decode()

    def _quiet_phase(self) -> Phase:
        """Return a phase as quiet as usual, for which it waits; one that is not, if none comes."""
        phase = self._just_measured() or self._phase()
        for _ in range(_QUIET_TRIES):
            if not self._usual.is_exceeded_by(phase):
                break
            phase = self._phase()
            self._usual.add(phase)
        return phase

    def _just_measured(self) -> Phase | None:
        if self._last is None:
            return None
        end, phase = self._last
        return phase if time.monotonic() < end + SETTLE_SECONDS else None

    def _phase(self) -> Phase:
        most = self._of_agent(held_by)
        shared = self._of_agent(_resident_bytes) - most.pss_bytes
        start, (taken, waited) = time.monotonic(), self._of_agent(cpu_seconds)
        while time.monotonic() < start + self.seconds:
            time.sleep(_PROBE_SECONDS)
            most = most.most(self._of_agent(lambda pid: _held(pid, _resident_bytes(pid) - shared)))
        end = time.monotonic()
        taken, waited = (
            (after - before) / (end - start)
            for after, before in zip(self._of_agent(cpu_seconds), (taken, waited), strict=True)
        )
        # What began within may end, and be written down, a little later.
        time.sleep(2 * max(CALL_SECONDS.values()))
        last = self._of_agent(held_by)
        calls = tuple(self.quiet.between(start, end))
        return Phase(calls, most.most(last), last, taken, waited)

    def _of_agent(self, read: Callable[[int], T]) -> T:
        """Return what is read of the agent's process. Raises AgentFailed if it has ended."""
        try:
            found = read(self.agent.pid)
        except OSError:  # its files go with it
            if self.agent.running:
                raise
        if not self.agent.running:
            log = self.agent.stderr_text()[-_LOG_CHARACTERS:]
            raise AgentFailed(f"the agent ended:\n{log}")
        return found


@contextmanager
def bench(*flags: str, seconds: float) -> Iterator[Bench]:
    """Yield a lab in which the quiet pods call before any attack."""
    with Lab() as lab, ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, {int(_PODS_CPU)})
        quiet = [lab.pod(f"quiet-{n}").container("app", cpus=_PODS_CPU) for n in range(QUIET_PODS)]
        hostile = lab.pod("hostile", qos="besteffort").container("app", cpus=_PODS_CPU)
        _weigh([directory.parent for directory in hostile.cgroups], 2)
        _weigh([_top(directory, lab.name) for directory in hostile.cgroups], 262_144)
        for one in quiet:
            _let_be_realtime(one, lab.name)
        echo = quiet[0].spawn(_module("echo", "/etc/netutil/echo.sock"), env=_ENV, stderr=None)
        stack.callback(echo.wait)
        stack.callback(echo.kill)
        agent = lab.agent(*flags, command=("taskset", "-c", _AGENTS_CPU, *COMMAND))
        callers = QuietPods(quiet)
        stack.callback(callers.close)
        callers.wait_for(QUIET_PODS * 30)
        it = Bench(agent, hostile, callers, seconds)
        it.ask()
        yield it


def _let_be_realtime(container: LabContainer, name: str) -> None:
    """Give a container's pod a share of the real-time runtime (RT_GROUP_SCHED of cgroup v1)."""
    for directory in container.cgroups:
        top = _top(directory, name)
        path = [one for one in (directory, *directory.parents) if one.is_relative_to(top)]
        for one in reversed(path):
            shared = one not in (directory, directory.parent)
            if (one / "cpu.rt_runtime_us").exists():
                microseconds = _REALTIME_MICROSECONDS * (QUIET_PODS if shared else 1)
                (one / "cpu.rt_runtime_us").write_text(str(microseconds))


def _top(directory: Path, name: str) -> Path:
    return next(parent for parent in directory.parents if parent.name == name)


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-m", f"tests.performance.{name}", *arguments]
