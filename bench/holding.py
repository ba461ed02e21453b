"""The cost of pods that only hold a connection and watch, and of pods that call all the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise

from bench import node
from bench.load_generator import LoadGenerator
from bench.rows import Row
from tests.support.fakes import kubelet as kubelet_server
from tests.support.lab import Lab, LabAgent, LabContainer

NUMBERS = (1, 10, 110, 250)
_NODE = 110  # the kubelet's default of pods on a node
_REFRESH_SECONDS = 2
_CALLS_AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Cost:
    """The resources of an agent while that many pods watch."""

    pods: int
    memory_mib: float
    descriptors: int
    cpu_percent: float
    seconds: float
    note: str


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of watchers at each number of pods, and of the kubelet's requests."""
    seconds = 5.0 if quick else 20.0
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, NUMBERS[-1])
        agent = lab.agent("--log-level=warning")
        node.wait_for_socket(lab.socket)
        watching: list[LoadGenerator] = []
        costs: list[Cost] = []
        for number in NUMBERS:
            for container in containers[len(watching) : number]:
                watching.append(stack.enter_context(LoadGenerator(container)))
                watching[-1].ask("watch", "Watch", 1)
            costs.append(settled_cost(agent, number, seconds))
            yield from _held(costs[-1])
    yield from _growth(costs)
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        yield _gets(stack, lab, node.light_pods(lab, _NODE), seconds)


def settled_cost(agent: LabAgent, number: int, seconds: float) -> Cost:
    """Return what an agent holds and uses over some seconds, once it is quiet."""
    time.sleep(2)  # what came with the last of them is done
    before, began = node.cpu_seconds(agent.pid), time.monotonic()
    time.sleep(seconds)
    used = (node.cpu_seconds(agent.pid) - before) / (time.monotonic() - began)
    return Cost(
        number,
        node.pss_mib(agent.pid),
        node.descriptors(agent.pid),
        100 * used,
        seconds,
        f"RSS {node.rss_mib(agent.pid):.1f} MiB, {node.threads(agent.pid)} threads",
    )


def _held(cost: Cost) -> Iterator[Row]:
    what = f"{cost.pods} pods, a connection and an idle `Watch` each"
    for key, of, against, value, unit, note in (
        ("memory", "memory of the agent (PSS)", "absolute", cost.memory_mib, "MiB", cost.note),
        ("descriptors", "descriptors of the agent", "absolute", cost.descriptors, "", ""),
        ("cpu", "CPU of the agent", "one core", cost.cpu_percent, "%", f"{cost.seconds:.0f} s"),
    ):
        yield Row(f"watch.{cost.pods}.{key}", f"{of}, {what}", against, value, unit, note=note)


def _growth(costs: list[Cost]) -> Iterator[Row]:
    """Yield what one more pod costs: a term that grows faster than the pods shows in the last."""
    for fewer, more in pairwise(costs):
        pods = more.pods - fewer.pods
        for key, of, value, unit in (
            ("memory", "memory", 1024 * (more.memory_mib - fewer.memory_mib), "KiB"),
            ("descriptors", "descriptors", more.descriptors - fewer.descriptors, ""),
            ("cpu", "CPU", 1e4 * (more.cpu_percent - fewer.cpu_percent), "µs a second"),
        ):
            yield Row(
                f"growth.{more.pods}.{key}",
                f"{of} of one more pod, from {fewer.pods} to {more.pods} pods",
                "absolute",
                value / pods,
                unit,
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
    generators = [stack.enter_context(LoadGenerator(container)) for container in containers]
    for generator in generators:
        generator.ask("kept", "GetPod", 1)
    before, began, calls = len(double.requests), time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for generator in generators:
            generator.start("kept", "GetPod", _CALLS_AT_ONCE)
        calls += sum(generator.result().calls for generator in generators)
    took = time.monotonic() - began
    return Row(
        "kubelet.gets",
        f"GETs to the kubelet, {len(generators)} pods asking all the time",
        "one each refresh",
        (len(double.requests) - before) / (took / _REFRESH_SECONDS),
        "",
        note=f"{calls} calls in {took:.1f} s, --pod-refresh={_REFRESH_SECONDS}",
    )
