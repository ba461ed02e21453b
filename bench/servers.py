"""The agent and what it is compared with, in one lab, called alternately from one pod."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import answers, go_sidecar, h2load, node
from bench.h2load import Load
from bench.load_generator import Calls, How, LoadGenerator
from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab, LabContainer
from tests.support.nodes.dpdk_node import podresources

AGENT, ECHO, GRPCSERVER, SIDECAR = "net", "echo", "grpcserver", "sidecar"
"""The names of the servers, and of their sockets."""
THE_ECHO = "bare grpc.aio, same answers"
THE_SIDECAR = "a plain Go sidecar"
LIFTED = ("--max-calls-per-second-per-pod=1000000", "--max-call-burst-per-pod=1000000")
"""The one limit that is not measured at its default: here one pod asks as hundreds do."""
_SETTLE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Slice:
    """The cost of one slice: the caller's time, and seconds of the server's CPU for each call."""

    calls: Calls
    cpu: float


@dataclass(slots=True)
class Servers:
    """The servers by name, each with the pid of its process, and the pod that asks them."""

    container: LabContainer
    pids: dict[str, int] = field(default_factory=dict)
    generators: dict[str, LoadGenerator] = field(default_factory=dict)

    def interleaved(
        self, how: How, method: str, calls: int, slices: int, *, own_pid: bool = False
    ) -> dict[str, list[Slice]]:
        """Call all alternately, so that other load of the machine affects all alike."""
        for generator in self.generators.values():
            generator.ask(how, method, max(10, calls // 10), own_pid=own_pid)
        found: dict[str, list[Slice]] = {name: [] for name in self.generators}
        for _ in range(slices):
            for name, generator in self.generators.items():
                before = node.cpu_seconds(self.pids[name])
                made = generator.ask(how, method, calls, own_pid=own_pid)
                time.sleep(_SETTLE_SECONDS)  # what follows a call belongs to it
                used = node.cpu_seconds(self.pids[name]) - before
                found[name].append(Slice(made, used / calls))
        return found

    def rates(
        self,
        names: Sequence[str],
        method: str,
        load: Load,
        *,
        calls: int,
        slices: int,
        own_pid: bool = False,
    ) -> dict[str, list[float]]:
        """Return the calls a second of some of the servers, called alternately."""
        found: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(slices):
            for name, rates in found.items():
                rate = h2load.calls_per_second(
                    self.container, socket_of(name), method, load, calls=calls, own_pid=own_pid
                )
                rates.append(rate)
        return found


def socket_of(name: str) -> str:
    """Return the path of a server's socket in a pod."""
    return f"/etc/netutil/{name}.sock"


@contextmanager
def servers(*beside: str) -> Iterator[Servers]:
    """Start the agent, the echo and the others named, with one pod that has all facts."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        kubelet = stack.enter_context(podresources(lab.directory / "kubelet.sock"))
        kubelet.pods = [allocated("upf", "telco")]
        app = node.app(node.pod(lab, "upf"))
        agent = lab.agent(f"--pod-resources={kubelet.path}", "--log-level=error", *LIFTED)
        node.wait_for_socket(lab.socket)
        kept = lab.directory / "answers.json"
        answers.write(kept, node.ask_each_method(app))
        found = Servers(app, {AGENT: agent.pid})
        for name in (ECHO, GRPCSERVER):
            if name == ECHO or name in beside:
                socket = lab.socket.parent / f"{name}.sock"
                command = [f"bench.{name}", str(socket), str(kept)]
                found.pids[name] = stack.enter_context(node.server(socket, command)).pid
        if SIDECAR in beside:
            socket = lab.socket.parent / f"{SIDECAR}.sock"
            process = stack.enter_context(go_sidecar.running(app, socket, lab.directory))
            found.pids[SIDECAR] = process.host_pid
        for name in found.pids:
            found.generators[name] = stack.enter_context(LoadGenerator(app, socket_of(name)))
        yield found
