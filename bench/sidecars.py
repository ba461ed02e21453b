"""The whole node: a sidecar in each pod against one agent for all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

from bench import node
from bench.load_generator import LoadGenerator
from bench.rows import Row
from tests.support.lab import Lab, LabProcess

NUMBERS = (1, 10, 50, 110)
GO_SIDECAR_MIB = 13.6
"""Resident memory of the Go sidecar that the agent replaces, in each pod, as it was measured."""
_STATUS = '[{"name": "cbr0", "interface": "eth0", "ips": ["10.1.0.5"], "default": true}]'


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost for a node of serving that many pods."""

    pods: int
    memory_mib: float
    descriptors: int
    threads: int
    start_cpu_seconds: float


def compare(*, quick: bool) -> Iterator[tuple[Cost, Cost]]:
    """Yield the cost of the sidecars and of the agent for each number of pods.

    Each pod holds one connection and has asked once; to the agent it also holds a `Watch`.
    """
    numbers = NUMBERS[:2] if quick else NUMBERS
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, numbers[-1])
        agent = lab.agent("--log-level=warning")
        node.wait_for_socket(lab.socket)
        start = node.cpu_seconds(agent.pid)
        agents = []
        watching: list[LoadGenerator] = []
        for number in numbers:
            for container in containers[len(watching) : number]:
                watching.append(stack.enter_context(LoadGenerator(container)))
                watching[-1].ask("kept", "GetPod", 1)
                watching[-1].ask("watch", "Watch", 1)
            time.sleep(1)
            agents.append(_cost(number, [agent.pid], start))
        annotation = lab.directory / "network-status"
        annotation.write_text(_STATUS)
        sidecars: list[LabProcess] = []
        for number, ours in zip(numbers, agents, strict=True):
            for container in containers[len(sidecars) : number]:
                socket = lab.directory / f"sidecar-{len(sidecars)}.sock"
                argv = [sys.executable, "-m", "bench.sidecar", str(socket), str(annotation)]
                process = container.spawn(argv, env=node.ENV, stdout=None, stderr=None)
                stack.callback(_end, process)
                sidecars.append(process)
                _ask_once(socket)
            pids = [process.host_pid for process in sidecars]
            yield _cost(number, pids, sum(map(node.cpu_seconds, pids))), ours


def rows(costs: list[tuple[Cost, Cost]]) -> Iterator[Row]:
    """Yield the rows of a comparison."""
    for theirs, ours in costs:
        against = f"{theirs.pods} sidecars in Python"
        for key, what, one, other, unit in (
            ("memory", "memory (PSS)", ours.memory_mib, theirs.memory_mib, "MiB"),
            ("descriptors", "descriptors", ours.descriptors, theirs.descriptors, ""),
            ("threads", "threads", ours.threads, theirs.threads, ""),
            ("start", "CPU to start", ours.start_cpu_seconds, theirs.start_cpu_seconds, "s"),
        ):
            note = f"{one:.1f} against {other:.1f} {unit}".rstrip()
            if key == "memory":
                note += f"; {theirs.pods} Go sidecars: {theirs.pods * GO_SIDECAR_MIB:.0f} MiB"
            yield Row(
                f"node.{theirs.pods}.{key}",
                f"whole node, {theirs.pods} pods: {what} of one agent",
                against,
                one / other,
                note=note,
            )


def _cost(pods: int, pids: list[int], start_cpu_seconds: float) -> Cost:
    return Cost(
        pods,
        sum(map(node.pss_mib, pids)),
        sum(map(node.descriptors, pids)),
        sum(map(node.threads, pids)),
        start_cpu_seconds,
    )


def _ask_once(socket: Path) -> None:
    node.wait_for_socket(socket)
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = netutil_pb2_grpc.NetUtilStub(channel)
        stub.GetCPUInfo(api.CPURequest(), timeout=10)
        stub.GetEnv(api.EnvRequest(), timeout=10)
        stub.GetNetworkStatus(api.NetworkStatusRequest(), timeout=10)


def _end(process: LabProcess) -> None:
    process.kill()
    process.wait()
