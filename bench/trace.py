"""`make trace`: the way of a call through the agent: Python calls, files, moves between files.

For each method: what a call over a kept connection from a pod takes, on all threads of a real
agent; for Watch, a stream up to its first snapshot, and its cancellation. METHODS on the command
line names some; `--functions` prints each function too.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import answers, node
from bench.load_generator import LoadGenerator
from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab, LabContainer, LabProcess, why_no_lab
from tests.support.nodes.dpdk_node import podresources

_PROGRAM = Path(__file__).with_name("traced_agent.py")
_CALLS = 20
_TRIES = 3
_WARM_UP = 10
_WAIT_SECONDS = 30.0
_SETTLE_SECONDS = 0.05
_AGENT = "agent/"
WATCH = "Watch"
_WATCHER = """
import sys, grpc
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc
stub = netutil_pb2_grpc.NetUtilStub(grpc.insecure_channel("unix:/etc/netutil/net.sock"))
for line in sys.stdin:
    for _ in range(int(line)):
        stream = stub.Watch(api.WatchRequest(), timeout=30)
        next(stream)
        stream.cancel()
    print("done", flush=True)
"""
_OF_THE_SERVICE = tuple(
    f"{_AGENT}{package}/"
    for package in ("api", "collect", "identity", "messages", "observability", "pods", "watch")
)


@dataclass(frozen=True, slots=True)
class Way:
    """The path of one call: Python calls by file and function, and calls into another file."""

    calls: float
    own_calls: float
    moves: float
    functions: tuple[tuple[str, str, float], ...]

    @property
    def files(self) -> list[str]:
        """The agent's files that the call passes through."""
        return sorted({file for file, _, _ in self.functions if file.startswith(_AGENT)})

    def of_service(self) -> dict[tuple[str, str], float]:
        """Return the calls of what knows pods: no load of the machine changes them."""
        return {
            (file, name): number
            for file, name, number in self.functions
            if file.startswith(_OF_THE_SERVICE)
        }


@dataclass(frozen=True, slots=True)
class Traced:
    """An agent that counts, and a pod that asks it."""

    generator: LoadGenerator
    container: LabContainer
    pid: int
    output: Path

    def way(self, method: str, *, own_pid: bool = False) -> Way:
        """Return the way of a call. What happens in less than every second call is left out."""
        if method == WATCH:
            with watching(self.container) as watcher:
                return self._way(lambda number: _watch(watcher, number))
        return self._way(lambda n: self.generator.ask("kept", method, n, own_pid=own_pid))

    def _way(self, ask: Callable[[int], object]) -> Way:
        """Return what is common to some ways: the load of the machine only adds to each."""
        ask(_WARM_UP)
        counted = [self._count(ask) for _ in range(_TRIES)]
        functions = tuple(
            (file, name, number / _CALLS)
            for file, name, number in _fewest([one["functions"] for one in counted])
            if number * 2 >= _CALLS
        )
        own = sum(number for file, _, number in functions if file.startswith(_AGENT))
        calls = sum(number for _, _, number in functions)
        return Way(calls, own, min(one["moves"] for one in counted) / _CALLS, functions)

    def _count(self, ask: Callable[[int], object]) -> dict[str, Any]:
        time.sleep(_SETTLE_SECONDS)
        self.output.unlink(missing_ok=True)
        os.kill(self.pid, signal.SIGUSR1)
        time.sleep(_SETTLE_SECONDS)
        ask(_CALLS)
        time.sleep(_SETTLE_SECONDS)
        os.kill(self.pid, signal.SIGUSR2)
        return _read(self.output)


def _fewest(counted: list[list[tuple[str, str, int]]]) -> list[tuple[str, str, int]]:
    """Return the functions of the first count that are in all, with the smallest number."""
    others = [{(file, name): number for file, name, number in one} for one in counted[1:]]
    return [
        (file, name, min(number, *(one.get((file, name), 0) for one in others)))
        for file, name, number in counted[0]
    ]


@contextmanager
def traced() -> Iterator[Traced]:
    """Start an agent that counts, on a node with all facts."""
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        kubelet.pods = [allocated("upf", "telco")]
        app = node.app(node.pod(lab, "upf"))
        output = lab.directory / "trace.json"
        command = (sys.executable, "-P", str(_PROGRAM), str(output))
        flags = (f"--pod-resources={kubelet.path}", "--log-level=error", "--pod-refresh=3600")
        agent = lab.agent(*flags, command=command)
        with LoadGenerator(app) as generator:
            yield Traced(generator, app, agent.pid, output)


@contextmanager
def watching(container: LabContainer) -> Iterator[LabProcess]:
    """Start a program in a pod that opens as many streams, one by one, as each line says."""
    process = container.spawn(
        [sys.executable, "-c", _WATCHER], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _watch(watcher: LabProcess, number: int) -> None:
    assert watcher.stdin is not None
    assert watcher.stdout is not None
    watcher.stdin.write(b"%d\n" % number)
    watcher.stdin.flush()
    if watcher.stdout.readline() != b"done\n":
        raise RuntimeError("a stream ended before its first snapshot")


def _read(output: Path) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not output.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the agent did not write what it counted")
        time.sleep(0.01)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


_METHODS = [*answers.METHODS, WATCH]


def _method(text: str) -> str:
    if text not in _METHODS:
        raise argparse.ArgumentTypeError(f"no method {text}; there are {', '.join(_METHODS)}")
    return text


def main() -> int:
    """Print the table. Return 1 if this machine cannot have a lab."""
    parser = argparse.ArgumentParser(prog="python -m bench.trace", description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", type=_method, default=_METHODS)
    parser.add_argument("--functions", action="store_true", help="print each function too")
    parser.add_argument("--own-pid", action="store_true", help="with the caller's pid in requests")
    arguments = parser.parse_args()
    missing = why_no_lab()
    if missing:
        print(f"trace: {missing}", file=sys.stderr)
        return 1
    with traced() as found:
        print(f"{'method':18}{'calls':>7}{'own':>7}{'files':>7}{'moves':>7}")
        for method in arguments.methods:
            way = found.way(method, own_pid=arguments.own_pid)
            print(
                f"{method:18}{way.calls:7.0f}{way.own_calls:7.0f}{len(way.files):7}{way.moves:7.0f}"
            )
            if arguments.functions:
                for file, name, number in way.functions:
                    print(f"  {number:6.1f}  {file}: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
