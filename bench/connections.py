"""The cost of an idle connection, and the effect of one hostile pod on the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import answers, h2load, node
from bench.h2load import Load
from bench.load_generator import AGENT_SOCKET, LoadGenerator
from bench.rows import Row, ratio
from tests.support.lab import Lab, LabContainer

_PODS = 32
_EACH = 63
"""2016 connections; a pod may hold 64."""
_SLICE = 100
_FLOOD = Load(connections=1, streams=64)
"""The hostile pod holds all connections but one already, and has all streams that it may on it."""


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, _PODS)
        agent = lab.agent("--log-level=error")
        node.wait_for_socket(lab.socket)
        kept = lab.directory / "answers.json"
        answers.write(kept, node.ask_each_method(containers[0], methods=("GetPod",)))
        echo_socket = lab.socket.parent / "echo.sock"
        echo = stack.enter_context(
            node.server(echo_socket, ["bench.echo", str(echo_socket), str(kept)])
        )
        victim = stack.enter_context(LoadGenerator(containers[0]))
        victim.ask("kept", "GetPod", _SLICE)
        ours = _hold(stack, containers, agent.pid, AGENT_SOCKET)
        theirs = _hold(stack, containers, echo.pid, "/etc/netutil/echo.sock")
        for index, (key, what, unit) in enumerate(
            (
                ("memory", "memory of a held connection", "KiB"),
                ("descriptors", "descriptors of a held connection", ""),
            )
        ):
            yield Row(
                f"held.{key}",
                what,
                "absolute",
                round(ours[index], 2),  # a file that the agent opened meanwhile is no connection's
                unit,
                note=f"{_PODS * _EACH} connections; echo {theirs[index]:.1f} {unit}",
            )
        yield from _hostile(victim, containers[1], slices=3 if quick else 7)


def _hold(
    stack: ExitStack, containers: list[LabContainer], pid: int, socket: str
) -> tuple[float, float]:
    """Return the KiB and the descriptors of one more connection of a pod that has one already."""
    generators = [stack.enter_context(LoadGenerator(one, socket)) for one in containers[1:]]
    for generator in generators:
        generator.ask("hold", "GetPod", 1)
    time.sleep(1)
    memory, descriptors = node.pss_mib(pid), node.descriptors(pid)
    for generator in generators:
        generator.ask("hold", "GetPod", _EACH - 1)
    held = len(generators) * (_EACH - 1)
    time.sleep(1)
    return (
        1024 * (node.pss_mib(pid) - memory) / held,
        (node.descriptors(pid) - descriptors) / held,
    )


def _hostile(victim: LoadGenerator, hostile: LabContainer, slices: int) -> Iterator[Row]:
    without: list[float] = []
    during: list[float] = []
    for _ in range(slices):
        without.append(victim.ask("kept", "GetPod", _SLICE).p99)
        flood = h2load.flood(hostile, AGENT_SOCKET, "GetPod", _FLOOD, seconds=30)
        try:
            time.sleep(0.5)
            during.append(victim.ask("kept", "GetPod", _SLICE).p99)
        finally:
            flood.kill()
            flood.communicate()
        time.sleep(0.5)
    yield ratio(
        "hostile.p99",
        f"another pod's p99 while one floods, {_PODS * _EACH} connections held",
        "the same without the flood",
        during,
        without,
        note="h2load: one connection with 64 calls in flight",
    )
