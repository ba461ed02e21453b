"""What pods cost that only hold a connection and watch, and pods that ask all the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench import node
from bench.asker import Asker
from bench.rows import Row
from tests.lab import Lab, LabAgent, LabContainer
from tests.pods import kubelet_server

NUMBERS = (1, 10, 110, 250)
_NODE = 110  # the kubelet's default of pods on a node
_REFRESH_SECONDS = 2
_CALLS_AT_ONCE = 20


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of watchers at each number of pods, and of the kubelet's requests."""
    seconds = 5.0 if quick else 20.0
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, NUMBERS[-1])
        agent = lab.agent("--log-level=warning")
        node.wait_for_socket(lab.socket)
        watching: list[Asker] = []
        for number in NUMBERS:
            for container in containers[len(watching) : number]:
                watching.append(stack.enter_context(Asker(container)))
                watching[-1].ask("watch", "Watch", 1)
            yield from _held(agent, number, seconds)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        yield _gets(stack, lab, node.light_pods(lab, _NODE), seconds)


def _held(agent: LabAgent, number: int, seconds: float) -> Iterator[Row]:
    time.sleep(2)  # what came with the last of them is done
    before, began = node.cpu_seconds(agent.pid), time.monotonic()
    time.sleep(seconds)
    used = (node.cpu_seconds(agent.pid) - before) / (time.monotonic() - began)
    what = f"{number} pods, a connection and an idle `Watch` each"
    yield Row(
        f"watch.{number}.memory",
        f"memory of the agent (PSS), {what}",
        "absolute",
        node.pss_mib(agent.pid),
        "MiB",
        bound=64.0 if number == _NODE else None,
        note=f"RSS {node.rss_mib(agent.pid):.1f} MiB, {node.threads(agent.pid)} threads",
    )
    yield Row(
        f"watch.{number}.descriptors",
        f"descriptors of the agent, {what}",
        "absolute",
        node.descriptors(agent.pid),
        "",
    )
    yield Row(
        f"watch.{number}.cpu",
        f"CPU of the agent, {what}",
        "one core",
        100 * used,
        "%",
        bound=0.5 if number == _NODE else None,
        note=f"over {seconds:.0f} s",
    )


def _gets(stack: ExitStack, lab: Lab, containers: list[LabContainer], seconds: float) -> Row:
    double = kubelet_server.KubeletDouble(kubelet_server.pods(*lab.pod_list()["items"]))
    kubelet = stack.enter_context(kubelet_server.serving(double))
    lab.agent(
        f"--kubelet-url={kubelet.url}",
        f"--pod-refresh={_REFRESH_SECONDS}",
        "--log-level=warning",
        pod_source="kubelet",
    )
    node.wait_for_socket(lab.socket)
    askers = [stack.enter_context(Asker(container)) for container in containers]
    for asker in askers:
        asker.ask("kept", "GetPod", 1)
    before, began, calls = len(double.requests), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for asker in askers:
            asker.start("kept", "GetPod", _CALLS_AT_ONCE)
        calls += sum(asker.result().calls for asker in askers)
    took = time.monotonic() - began
    return Row(
        "kubelet.gets",
        f"GETs to the kubelet, {len(askers)} pods asking all the time",
        "one each refresh",
        (len(double.requests) - before) / (took / _REFRESH_SECONDS),
        "",
        bound=1.0,
        note=f"{calls} calls in {took:.1f} s, --pod-refresh={_REFRESH_SECONDS}",
    )
