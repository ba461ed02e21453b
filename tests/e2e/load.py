"""A pod that asks all the time, and what came of its calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.node import Node, wait_for
from tests.e2e.settings import RESULTS, SLOWNESS
from tests.e2e.workloads import container, pod

CLIENTS = max(1, round(4 / SLOWNESS))
_PAUSE_SECONDS = 0.1 * (SLOWNESS - 1)
"""Without a pause an emulated processor has no time left for the node itself."""
# Each call goes over a kept connection, and every tenth of a client's over a new one.
_PROGRAM = f"""
import json, os, signal, sys, threading, time
from netutil.client import Client
name, target = sys.argv[1:]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
calls, wrong, longest = [0] * {CLIENTS}, [], [0.0] * {CLIENTS}
def ask(number, client):
    began = time.monotonic()
    try:
        pod, who = client.pod(), client.variable("WHO")
        if (pod.name, pod.container_name, who) != (name + "-e2e", "app", "app"):
            wrong.append(repr((pod.name, pod.container_name, who)))
    except Exception as error:
        wrong.append(repr(error))
    calls[number] += 2
    longest[number] = max(longest[number], time.monotonic() - began)
def run(number):
    while not stop.is_set():
        with Client(timeout_seconds={60 * SLOWNESS}) as client:
            for _ in range(10):
                if not stop.is_set():
                    ask(number, client)
                    time.sleep({_PAUSE_SECONDS})
threads = [threading.Thread(target=run, args=(number,)) for number in range({CLIENTS})]
[thread.start() for thread in threads]
while any(thread.is_alive() for thread in threads):
    with open(target + ".new", "w") as file:
        json.dump(dict(calls=sum(calls), wrong=wrong[:5], longest_seconds=max(longest)), file)
    os.rename(target + ".new", target)
    time.sleep({0.1 * SLOWNESS})
"""


@dataclass(frozen=True, slots=True)
class Report:
    """Calls so far, the first of those that failed or were answered wrong, the longest pair."""

    calls: int
    wrong: list[str]
    longest_seconds: float


def load_pod(name: str) -> dict[str, Any]:
    """Return a pod of clients that ask all the time."""
    command = ["python", "-c", _PROGRAM, name, f"/results/{name}"]
    return pod(name, container("app", command))


def report(name: str) -> Report:
    """Return what the clients have seen so far."""
    return Report(**json.loads((RESULTS / name).read_text(encoding="utf-8")))


def start(node: Node, *names: str) -> None:
    """Start such pods and wait until each has been answered."""
    for name in names:
        (RESULTS / name).unlink(missing_ok=True)
    node.add(*map(load_pod, names))
    node.running(*names)
    wait_for(lambda: all((RESULTS / name).exists() for name in names), "the first reports")
    for name in names:
        goes_on(name)


def goes_on(name: str, calls: int = 20) -> Report:
    """Return the report when that many more calls were made."""
    before = report(name).calls
    try:
        wait_for(lambda: report(name).calls >= before + calls, f"calls of {name}", 90)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; {report(name)}; the agents said: {said()}") from None
    return report(name)


def said() -> str:
    """Return the last lines of every agent's log, as the runtime keeps them."""
    logs = sorted(Path("/var/log/pods").glob("netutil_*/agent/*.log"))
    return "\n".join(
        line for log in logs for line in [f"{log}:", *log.read_text().split("\n")[-20:]]
    )
