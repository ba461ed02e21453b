"""The whole agent on another event loop against asyncio's, in one run.

`NETUTIL_BENCH_LOOP=uvloop make bench` adds this part; without the variable it is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from subprocess import Popen

from bench import node
from bench.h2load import Load
from bench.load_generator import LoadGenerator
from bench.rows import Row, ratio
from bench.servers import LIFTED, Servers, Slice, socket_of
from tests.support.lab import Lab

VARIABLE = "NETUTIL_BENCH_LOOP"
_ASYNCIO = "asyncio"
_METHODS = ("GetPod", "GetCPUInfo", "GetEnv", "GetAll")
_LOAD = Load(connections=8, streams=4)
_PODS = 110  # the kubelet's default of pods on a node


def rows(loop: str, *, quick: bool) -> Iterator[Row]:
    """Yield the rows of a loop against asyncio's: start, calls, memory and idle CPU."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        found = Servers(node.app(node.pod(lab, "upf")))
        others = node.light_pods(lab, _PODS - 1)
        lab.write_pod_list()
        yield _starts(lab, loop, times=3 if quick else 9)
        for name in (_ASYNCIO, loop):
            found.pids[name] = stack.enter_context(_agent(lab, name)).pid
            found.generators[name] = stack.enter_context(
                LoadGenerator(found.container, socket_of(name))
            )
        yield from _calls(found, loop, quick=quick)
        for name in found.pids:
            for container in (found.container, *others):
                generator = stack.enter_context(LoadGenerator(container, socket_of(name)))
                generator.ask("watch", "Watch", 1)
        yield from _idle(found, loop, seconds=5.0 if quick else 20.0)


def _agent(lab: Lab, loop: str) -> AbstractContextManager[Popen[bytes]]:
    socket = lab.socket.parent / f"{loop}.sock"
    flags = (
        f"--socket={socket}",
        "--admin-socket=",
        f"--pod-source=file:{lab.directory / 'pods.json'}",
        # It runs outside the lab's cgroups, from which the agent would learn this.
        f"--cgroup-root=/{lab.name}",
        "--metrics-address=",
        "--log-level=error",
    )
    return node.server(socket, ["bench.agent_on", loop, *flags, *LIFTED])


def _starts(lab: Lab, loop: str, times: int) -> Row:
    seconds: dict[str, list[float]] = {_ASYNCIO: [], loop: []}
    for _ in range(times):
        for name, taken in seconds.items():
            began = time.monotonic()
            with _agent(lab, name):
                taken.append(time.monotonic() - began)
    return ratio(
        "loop.start",
        f"cold start on {loop}, from exec to the first answer at the socket",
        _ASYNCIO,
        seconds[loop],
        seconds[_ASYNCIO],
        note=f"{min(seconds[loop]):.2f} s against {min(seconds[_ASYNCIO]):.2f} s",
    )


def _calls(found: Servers, loop: str, *, quick: bool) -> Iterator[Row]:
    slices, kept, fresh = (5, 100, 40) if quick else (15, 200, 60)
    for method in _METHODS:
        measured = found.interleaved("kept", method, kept, slices)
        yield _p50(f"{method} on {loop}, kept connection", f"kept.{method}", measured, loop)
    measured = found.interleaved("fresh", "GetPod", fresh, slices)
    yield _p50(f"GetPod on {loop}, from connect to the answer", "fresh.GetPod", measured, loop)
    for method in ("GetPod", "GetCPUInfo"):
        calls, slices = (1000, 3) if quick else (4000, 7)
        rates = found.rates(tuple(found.pids), method, _LOAD, calls=calls, slices=slices)
        yield ratio(
            f"loop.throughput.{method}",
            f"{method} on {loop}, calls a second, {_LOAD}",
            _ASYNCIO,
            rates[loop],
            rates[_ASYNCIO],
            note=f"h2load; asyncio {statistics.median(rates[_ASYNCIO]):.0f}/s",
        )


def _p50(what: str, key: str, measured: dict[str, list[Slice]], loop: str) -> Row:
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in measured.items()}
    return ratio(
        f"loop.{key}.p50",
        f"{what}, p50",
        _ASYNCIO,
        p50[loop],
        p50[_ASYNCIO],
        note=f"asyncio {1e6 * statistics.median(p50[_ASYNCIO]):.0f} µs",
    )


def _idle(found: Servers, loop: str, seconds: float) -> Iterator[Row]:
    """Measure both agents over the same time: neither is asked anything."""
    time.sleep(2)  # what came with the last of the watchers is done
    before = {name: node.cpu_seconds(pid) for name, pid in found.pids.items()}
    time.sleep(seconds)
    used = {name: node.cpu_seconds(pid) - before[name] for name, pid in found.pids.items()}
    memory = {name: node.pss_mib(pid) for name, pid in found.pids.items()}
    what = f"{_PODS} pods, a connection and an idle `Watch` each"
    for key, of, values, unit in (
        ("memory", "memory (PSS)", memory, "MiB"),
        ("cpu", "CPU", {name: 100 * used[name] / seconds for name in used}, "%"),
    ):
        yield Row(
            f"loop.{key}",
            f"{of} on {loop}, {what}",
            _ASYNCIO,
            values[loop] / values[_ASYNCIO],
            note=f"{values[loop]:.2f} {unit} against {values[_ASYNCIO]:.2f} {unit}",
        )
