"""What the other pods lose while one does its worst: `python -m tests.hostile.fairness [NAME …]`.

One agent, three pods that call at a steady rate, and a hostile one. For each attack: a quiet
phase, the attack, a quiet phase; the quiet pods' p99 in each, on a kept connection and on a new
one, and what the agent holds before, at its worst and after. Needs root.

The agent is judged here and not the scheduler, on two cores that others use too:

- The agent alone has the second CPU; the pods, hostile and quiet, and what measures share the
  first. So nobody takes the agent's time but by what it does for them.
- On the first, the hostile pod has the least weight that a pod can have (as a pod without a CPU
  request has). It gets all the time that the quiet ones leave, which is most: it has no quota, and
  sends as fast as a core lets it. They are real-time tasks (sched(7), SCHED_FIFO) where they may
  be: else each wake of theirs would wait for a slice of the hostile pod's.
- The lab as a whole outweighs the rest of the machine.
- What an echo of one byte on the pods' CPU takes longer during the attack is not the agent's doing.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.crowds import CROWDS
from tests.hostile.floods import FLOODS
from tests.lab import Lab, LabAgent, LabContainer, LabProcess
from tests.lab.agent import COMMAND

ROOT = Path(__file__).parents[2]
QUIET_PODS = 3
CALL_SECONDS = {"kept": 0.05, "new": 0.05, "echo": 0.05}
"""So that a phase of five seconds has 300 of each kind: of 75 the 99th percentile is the worst."""
SETTLE_SECONDS, MOST_RATIO = 1.0, 3.0
MOST_LEFT = 20
"""Descriptors more than before, seconds after an attack: the calls of the quiet pods differ."""
FLOOD_CONNECTIONS = 16
_AGENTS_CPU, _PODS_CPU = "1", "0"
_PROBE_SECONDS, _LEAST_SAMPLES = 0.25, 15
_REALTIME_MICROSECONDS = 100_000
"""Of each second, for one pod. Its callers need some thousands."""
_MEBIBYTE = 2**20
_ENV = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a quiet pod; `seconds` is infinite for one that failed."""

    kind: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """What the agent holds at a moment."""

    pss_bytes: int
    descriptors: int
    threads: int

    def most(self, other: Held) -> Held:
        return Held(
            max(self.pss_bytes, other.pss_bytes),
            max(self.descriptors, other.descriptors),
            max(self.threads, other.threads),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one attack. Percentiles in seconds, by kind of call ("kept", "new")."""

    name: str
    quiet: dict[str, float]
    attacked: dict[str, float]
    calls: int
    failed: int
    before: Held
    during: Held
    after: Held

    def ratio(self, kind: str) -> float:
        """Return the p99 during the attack by the quiet one, without what the scheduler took."""
        scheduler = max(0.0, self.attacked["echo"] - self.quiet["echo"])
        return (self.attacked[kind] - scheduler) / self.quiet[kind]

    @property
    def left_descriptors(self) -> int:
        """Return how many more descriptors the agent holds after the attack than before."""
        return self.after.descriptors - self.before.descriptors

    @property
    def worst_ratio(self) -> float:
        """That of the worse kind of call."""
        return max(self.ratio("kept"), self.ratio("new"))


def held_by(pid: int) -> Held:
    """Return what a process holds: proportional memory, descriptors, threads (proc(5))."""
    proc = Path(f"/proc/{pid}")
    lines = (proc / "smaps_rollup").read_text().splitlines()
    pss = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return Held(pss, len(os.listdir(proc / "fd")), len(os.listdir(proc / "task")))


class QuietPods:
    """The callers and what they have written down so far."""

    def __init__(self, containers: Sequence[LabContainer]) -> None:
        self._calls: list[Call] = []
        self._processes = [
            one.spawn(_module("caller", kind, str(seconds)), env=_ENV, stderr=None)
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
            self._calls.append(Call(kind, float(start), seconds))

    def between(self, start: float, end: float) -> list[Call]:
        """Return the calls that began in a span of CLOCK_MONOTONIC."""
        return [call for call in self._calls if start <= call.start < end]

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


def p99(calls: Sequence[Call], kind: str) -> float:
    """Return the 99th percentile of one kind of call, in seconds; infinite if hardly any ended."""
    found = sorted(call.seconds for call in calls if call.kind == kind)
    if len(found) < _LEAST_SAMPLES:
        return math.inf
    return found[int(0.99 * len(found))]


def _weigh(directories: Sequence[Path], shares: int) -> None:
    """Set a cgroup's CPU weight; `shares` as v1 counts them, 1024 is usual."""
    for directory in directories:
        for name, value in (("cpu.shares", shares), ("cpu.weight", max(1, shares * 100 // 1024))):
            if (directory / name).exists():
                (directory / name).write_text(str(min(value, 10_000) if "w" in name else value))


@dataclass
class Bench:
    """A lab with the quiet pods calling."""

    agent: LabAgent
    hostile: LabContainer
    quiet: QuietPods
    seconds: float
    held: list[Held] = field(default_factory=list)

    def attack(self, name: str, argv: Sequence[str]) -> Outcome:
        """Run one attack, a command in the hostile pod."""
        quiet = self._phase(self.seconds)
        before = held_by(self.agent.pid)
        self.held.clear()
        process = self.hostile.spawn(argv, env=_ENV, stdout=None, stderr=None)
        try:
            time.sleep(SETTLE_SECONDS)
            attacked = self._phase(self.seconds)
            assert process.poll() is None, f"the attack {name} ended by itself"
        finally:
            process.kill()
            process.wait()
        during = before
        for held in self.held:
            during = during.most(held)
        time.sleep(SETTLE_SECONDS)
        again = self._phase(self.seconds)
        return Outcome(
            name,
            {kind: min(p99(quiet, kind), p99(again, kind)) for kind in CALL_SECONDS},
            {kind: p99(attacked, kind) for kind in CALL_SECONDS},
            len(attacked),
            sum(call.seconds == math.inf for call in attacked),
            before,
            during,
            held_by(self.agent.pid),
        )

    def _phase(self, seconds: float) -> list[Call]:
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            time.sleep(_PROBE_SECONDS)
            self.held.append(held_by(self.agent.pid))
        end = time.monotonic()
        # What began within may end, and be written down, a little later.
        time.sleep(2 * max(CALL_SECONDS.values()))
        return self.quiet.between(start, end)


@contextmanager
def bench(*flags: str, seconds: float) -> Iterator[Bench]:
    """Yield a lab in which the quiet pods call and nobody attacks yet."""
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
        yield Bench(agent, hostile, callers, seconds)


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
    return [sys.executable, "-S", "-m", f"tests.hostile.{name}", *arguments]


ATTACKS: dict[str, list[str]] = {
    **{name: _module("floods", name, str(FLOOD_CONNECTIONS)) for name in FLOODS},
    **{name: _module("crowds", name) for name in CROWDS},
}


def line(outcome: Outcome) -> str:
    """Return one row of the table."""
    cells = [f"{outcome.name:22}"]
    for kind in ("kept", "new"):
        quiet, attacked = 1000 * outcome.quiet[kind], 1000 * outcome.attacked[kind]
        cells.append(f"{quiet:7.2f} {attacked:8.2f} {outcome.ratio(kind):6.1f}")
    cells.append(f"{1000 * outcome.quiet['echo']:5.2f} {1000 * outcome.attacked['echo']:6.2f}")
    cells.append(f"{outcome.failed:4}/{outcome.calls:<5}")
    held = (outcome.before, outcome.during, outcome.after)
    cells.append(" ".join(f"{one.pss_bytes / _MEBIBYTE:5.1f}" for one in held))
    cells.append(" ".join(f"{one.descriptors:4}" for one in held))
    cells.append(" ".join(f"{one.threads:3}" for one in held))
    return " | ".join(cells)


HEAD = "\n".join(
    " | ".join(cells)
    for cells in (
        [
            f"{'p99 in ms':22}",
            *(f"{name:^23}" for name in ("kept connection", "new connection")),
            f"{'echo':^12}",
            f"{'failed':^10}",
            f"{'PSS in MiB':^17}",
            f"{'descriptors':^14}",
            f"{'threads':^11}",
        ],
        [
            f"{'attack':22}",
            *2 * [f"{'quiet':>7} {'attack':>8} {'ratio':>6}"],
            f"{'quiet':>5} {'attack':>6}",
            f"{'of calls':^10}",
            "befor  most after",
            " bef most aftr",
            "bef mst aft",
        ],
    )
)


def main() -> int:
    """Print the table; return 1 if an attack cost the others, or left behind, more than it may."""
    seconds = float(os.environ.get("NETUTIL_ATTACK_SECONDS", "5"))
    names = sys.argv[1:] or list(ATTACKS)
    print(HEAD, flush=True)
    worst = 0
    with bench(seconds=seconds) as it:
        for name in names:
            outcome = it.attack(name, ATTACKS[name])
            over = outcome.worst_ratio > MOST_RATIO or outcome.failed
            left = outcome.left_descriptors > MOST_LEFT
            worst += bool(over or left)
            print(line(outcome), "OVER" if over else "", "LEFT" if left else "", flush=True)
    print(
        f"{len(names)} attacks, {worst} past {MOST_RATIO} times the quiet p99 or with more than"
        f" {MOST_LEFT} descriptors left"
    )
    return 1 if worst else 0


if __name__ == "__main__":
    sys.exit(main())
