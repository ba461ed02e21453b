"""What a call costs, against a bare server that gives the same answers in the same run."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import answers, node
from bench.asker import SERVICE, Asker, Calls, How
from bench.rows import Row, ratio
from tests.lab import Lab, LabContainer
from tests.podresources.kubelet import pod as allocated
from tests.service.dpdk_node import podresources

ECHO, DOOR, IDENTITY, AGENT = "echo", "door", "identity", "net"
THE_ECHO = "bare grpc.aio, same answers"
_UNARY = ("GetCPUInfo", "GetEnv", "GetNetworkStatus")
"""The sidecar's three methods: the bound is for each of them."""
_SETTLE_SECONDS = 0.02
_AT_ONCE_CALLS = 1000
_AS_FAST_AS_IT_CAN = (
    "--max-calls-per-second-per-pod=1000000",
    "--max-call-burst-per-pod=1000000",
    
)
"""One pod asks as hundreds do; with the defaults it would be told to ask less often, and wait."""


@dataclass(slots=True)
class Slice:
    """What one slice cost: the caller's time, and the server's CPU for each call."""

    calls: Calls
    cpu: float


@dataclass(slots=True)
class Servers:
    """The servers under test by name, each with the pid of its process."""

    container: LabContainer
    pids: dict[str, int] = field(default_factory=dict)
    askers: dict[str, Asker] = field(default_factory=dict)

    def turns(self, how: How, method: str, calls: int, slices: int) -> dict[str, list[Slice]]:
        """Ask all in turns, so that what else the machine does hits all alike."""
        for asker in self.askers.values():
            asker.ask(how, method, max(10, calls // 10))
        found: dict[str, list[Slice]] = {name: [] for name in self.askers}
        for _ in range(slices):
            for name, asker in self.askers.items():
                before = node.cpu_seconds(self.pids[name])
                made = asker.ask(how, method, calls)
                time.sleep(_SETTLE_SECONDS)  # what follows a call belongs to it
                used = node.cpu_seconds(self.pids[name]) - before
                found[name].append(Slice(made, used / calls))
        return found


@contextmanager
def servers() -> Iterator[Servers]:
    """The agent, the echo, and the agent's two stages, all asked from one pod."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        kubelet = stack.enter_context(podresources(lab.directory / "kubelet.sock"))
        kubelet.pods = [allocated("upf", "telco")]
        app = node.app(node.pod(lab, "upf"))
        resources = f"--pod-resources={kubelet.path}"
        agent = lab.agent(resources, "--log-level=error", *_AS_FAST_AS_IT_CAN)
        node.wait_for_socket(lab.socket)
        kept = lab.directory / "answers.json"
        answers.write(kept, node.ask_each_method(app))
        found = Servers(app, {AGENT: agent.pid})
        folder = lab.socket.parent
        echo = ["bench.echo", str(folder / "echo.sock"), str(kept)]
        found.pids[ECHO] = stack.enter_context(node.server(folder / "echo.sock", echo)).pid
        for stage in (DOOR, IDENTITY):
            command = [
                "bench.staged",
                stage,
                str(kept),
                f"--socket={folder / stage}.sock",
                "--admin-socket=",
                f"--pod-source=file:{lab.directory / 'pods.json'}",
                "--metrics-address=",
                "--log-level=error",
                *_AS_FAST_AS_IT_CAN,
            ]
            process = stack.enter_context(node.server(folder / f"{stage}.sock", command))
            found.pids[stage] = process.pid
        for name in (ECHO, DOOR, IDENTITY, AGENT):
            socket = f"/etc/netutil/{name}.sock"
            found.askers[name] = stack.enter_context(Asker(app, socket))
        yield found


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of calls on kept and on fresh connections, and of the clients."""
    slices, kept, fresh = (5, 100, 40) if quick else (15, 200, 60)
    with servers() as found:
        for method in answers.METHODS:
            yield from _split(method, found.turns("kept", method, kept, slices))
        for method in ("GetPod", "GetAll"):
            yield from _fresh(method, found.turns("fresh", method, fresh, slices))
        yield from _throughput(found, slices=3 if quick else 7)
        yield from _python(found, slices=3 if quick else 7)


def _split(method: str, found: dict[str, list[Slice]]) -> Iterator[Row]:
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in found.items()}
    cpu = {name: [one.cpu for one in slices] for name, slices in found.items()}
    share = {name: statistics.median(values) for name, values in cpu.items()}
    parts = (
        ("door", share[DOOR] - share[ECHO]),
        ("identity", share[IDENTITY] - share[DOOR]),
        ("facts", share[AGENT] - share[IDENTITY]),
    )
    whole = share[AGENT]
    split = ", ".join(f"{name} {100 * one / whole:.0f} %" for name, one in parts)
    yield ratio(
        f"kept.{method}.p50",
        f"{method}, kept connection, p50",
        THE_ECHO,
        p50[AGENT],
        p50[ECHO],
        bound=1.25 if method in _UNARY else None,
        note=f"echo {1e6 * statistics.median(p50[ECHO]):.0f} µs",
    )
    yield ratio(
        f"kept.{method}.cpu",
        f"{method}, CPU of the server for a call",
        THE_ECHO,
        cpu[AGENT],
        cpu[ECHO],
        note=f"gRPC {100 * share[ECHO] / whole:.0f} %, {split}",
    )


def _fresh(method: str, found: dict[str, list[Slice]]) -> Iterator[Row]:
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in found.items()}
    note = ", ".join(
        f"{name} {statistics.median(a / b for a, b in zip(p50[name], p50[ECHO], strict=True)):.2f}"
        for name in (DOOR, IDENTITY)
    )
    yield ratio(
        f"fresh.{method}.p50",
        f"{method}, from connect to the answer, p50",
        THE_ECHO,
        p50[AGENT],
        p50[ECHO],
        bound=1.5 if method == "GetAll" else None,
        note=f"echo {1e6 * statistics.median(p50[ECHO]):.0f} µs; ready-made answer behind {note}",
    )
    if method == "GetPod":
        yield ratio(
            "door.connections.rate",
            "connections a second, one call each",
            THE_ECHO,
            [1 / one.calls.mean for one in found[AGENT]],
            [1 / one.calls.mean for one in found[ECHO]],
            note=f"echo {1 / statistics.median(o.calls.mean for o in found[ECHO]):.0f}/s",
        )


def _throughput(found: Servers, slices: int) -> Iterator[Row]:
    for method in ("GetCPUInfo", "GetAll"):
        rates: dict[str, list[float]] = {ECHO: [], AGENT: []}
        for _ in range(slices):
            for name, list_of in rates.items():
                list_of.append(_calls_per_second(found.container, name, method))
        yield ratio(
            f"throughput.{method}",
            f"{method}, calls a second, 8 connections with 4 calls each",
            THE_ECHO,
            rates[AGENT],
            rates[ECHO],
            bound=0.85 if method == "GetCPUInfo" else None,
            at_least=True,
            note=f"h2load; echo {statistics.median(rates[ECHO]):.0f}/s",
        )


def _calls_per_second(container: LabContainer, name: str, method: str) -> float:
    body = node.TREE / "build" / "empty-message"
    body.write_bytes(bytes(5))
    done = container.run(
        [
            *("h2load", "-n", str(_AT_ONCE_CALLS), "-c", "8", "-m", "4"),
            *("-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"),
            *("-B", f"unix:/etc/netutil/{name}.sock", f"http://localhost{SERVICE}{method}"),
        ],
        timeout=60,
    )
    text = done.stdout.decode()
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", text)
    data = re.search(r"\((\d+)\) data", text)
    failed = re.search(r"(\d+) failed", text)
    if not (rate and data and failed and int(data[1]) and failed[1] == "0"):
        raise RuntimeError(f"h2load: {text} {done.stderr.decode()}")
    return float(rate[1])


_CLIENT = """
import json, sys, time
from netutil.client import Client
socket, calls = sys.argv[1], int(sys.argv[2])
took = []
with Client(socket, timeout_seconds=30) as client:
    client.pod()
    for _ in range(calls):
        began = time.perf_counter()
        client.pod()
        took.append(time.perf_counter() - began)
print(json.dumps(sorted(took)[calls // 2]))
"""
_CACHED = """
import json, sys, timeit
from netutil.client import Cached
with Cached(timeout_seconds=30) as facts:
    timer = timeit.Timer("facts.pod()", globals={"facts": facts})
    print(json.dumps([min(timer.repeat(5, 20000)) / 20000, timer.timeit(20000) / 20000]))
"""


def _python(found: Servers, slices: int) -> Iterator[Row]:
    def ask(name: str) -> float:
        argv = [sys.executable, "-c", _CLIENT, f"/etc/netutil/{name}.sock", "200"]
        return float(_output(found.container, argv))

    taken: dict[str, list[float]] = {ECHO: [], AGENT: []}
    for _ in range(slices):
        for name, list_of in taken.items():
            list_of.append(ask(name))
    yield ratio(
        "client.GetPod.p50",
        "`Client.pod()`, what a Python user waits, p50",
        "the same client, " + THE_ECHO,
        taken[AGENT],
        taken[ECHO],
        note=f"echo {1e6 * statistics.median(taken[ECHO]):.0f} µs",
    )
    least, _ = json.loads(_output(found.container, [sys.executable, "-c", _CACHED]))
    yield Row(
        "client.cached",
        "`Cached.pod()`: a value read again",
        "absolute",
        least * 1e6,
        "µs",
        bound=2.0,
        note="best of 5 x 20000",
    )


def _output(container: LabContainer, argv: list[str]) -> str:
    done: subprocess.CompletedProcess[bytes] = container.run(argv, env=node.ENV, timeout=120)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout.decode()
