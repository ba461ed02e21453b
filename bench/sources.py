"""What each source of pods and of claims costs the agent: its own imports, and 250 pods.

For the imports a new process imports all that the agent always needs, then makes the source as the
agent does. The 250 pods have a connection and an idle `Watch` each. The kubelet is the double of
the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from bench import node
from bench.holding import settled_cost
from bench.load_generator import LoadGenerator
from bench.rows import Row
from tests.support.fakes import kubelet, podsapi
from tests.support.lab import Lab, LabAgent, LabContainer

_MADE = """
import json, sys, time
import psutil
import netutil.agent.lifecycle
from netutil.agent.config import parse
from netutil.agent.pod_source import create_claims_api, create_source
config = parse(sys.argv[1:], {})
own = psutil.Process()
modules, pss, began = len(sys.modules), own.memory_full_info().pss, time.process_time()
source = create_source(config)
claims = create_claims_api(config)
print(json.dumps({
    "seconds": time.process_time() - began,
    "pss": own.memory_full_info().pss - pss,
    "modules": len(sys.modules) - modules,
}))
"""
_API_SERVER = ("--apiserver-url=https://192.0.2.1", "--node-name=node-1")
_SOURCES: dict[str, tuple[str, ...]] = {
    "file": ("--pod-source=file:/nonexistent/pods.json",),
    "kubelet": ("--pod-source=kubelet",),
    "pods-api": ("--pod-source=pods-api",),
    "apiserver": ("--pod-source=apiserver", *_API_SERVER),
    "claims": ("--pod-source=kubelet", "--resource-claims=apiserver", *_API_SERVER),
    "both": ("--pod-source=apiserver", "--resource-claims=apiserver", *_API_SERVER),
}


_PODS = 250


class Made(NamedTuple):
    """What it took to make a source."""

    seconds: float
    pss: float
    modules: int


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield CPU time and memory of each source."""
    times = 3 if quick else 9
    for name, flags in _SOURCES.items():
        made = [_make(flags) for _ in range(times)]
        milliseconds = [1000 * one.seconds for one in made]
        memory = [one.pss / 2**20 for one in made]
        note = f"{made[0].modules} modules; {' '.join(flags[:2])}"
        for key, of, values, unit in (
            ("cpu", "CPU to make", milliseconds, "ms"),
            ("memory", "memory (PSS) of", memory, "MiB"),
        ):
            yield Row(
                f"source.{name}.{key}",
                f"{of} the source `{name}`, its imports included",
                "absolute",
                min(values) if key == "cpu" else sorted(values)[len(values) // 2],
                unit,
                min(values),
                max(values),
                note=note,
            )
    yield from _with_pods(1.0 if quick else 5.0)


def _with_pods(seconds: float) -> Iterator[Row]:
    """Yield the memory of an agent with many pods, for the sources that are on the node."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        containers = node.light_pods(lab, _PODS)
        items = lab.pod_list()["items"]
        http = stack.enter_context(kubelet.serving(kubelet.KubeletDouble(kubelet.pods(*items))))
        path = lab.directory / "pods-api.sock"
        double = podsapi.KubeletDouble(path, *map(podsapi.pod_of_json, items))
        stack.enter_context(podsapi.serving_in_a_thread(double))
        for source, flags in {
            "file": (),
            "kubelet": (f"--kubelet-url={http.url}",),
            "pods-api": (f"--pods-api={path}",),
        }.items():
            kind = None if source == "file" else source
            agent = lab.agent("--log-level=warning", *flags, pod_source=kind)
            yield _watched(lab, agent, containers, source, seconds)
            agent.stop()


def _watched(
    lab: Lab, agent: LabAgent, containers: list[LabContainer], source: str, seconds: float
) -> Row:
    node.wait_for_socket(lab.socket)
    with ExitStack() as stack:
        for container in containers:
            stack.enter_context(LoadGenerator(container)).ask("watch", "Watch", 1)
        cost = settled_cost(agent, len(containers), seconds)
    what = f"{_PODS} pods with a `Watch` each"
    return Row(
        f"source.{source}.agent",
        f"memory of the agent (PSS), {what}, source `{source}`",
        "absolute",
        cost.memory_mib,
        "MiB",
        note=cost.note,
    )


def _make(flags: tuple[str, ...]) -> Made:
    done = subprocess.run(
        [sys.executable, "-c", _MADE, *flags],
        env=os.environ | node.ENV,
        check=True,
        capture_output=True,
    )
    return Made(**json.loads(done.stdout))
