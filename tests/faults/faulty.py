"""The shared parts of the tests of faults: a pod that calls an agent, and the agent's metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.lab.agent import LabAgent
from tests.support.lab.pod import LabContainer

_SECONDS = 30.0
_ASK = """
import json, sys, time
from netutil.client import Client, NetUtilError
from netutil.client.errors import Unreachable

client = Client(timeout_seconds=10)
longest = 0.0
for line in sys.stdin:
    command = json.loads(line)
    if command["fresh"]:
        client.close()
        client = Client(timeout_seconds=command["seconds"])
    started = time.monotonic()
    try:
        if command["what"] == "watch":
            with client.watch() as stream:
                value = next(stream)
        else:
            value = getattr(client, command["what"])()
        said = {"said": getattr(value, "name", "answered")}
    except NetUtilError as error:
        said = {"reason": error.reason, "code": error.code, "message": str(error)}
    print(json.dumps(said | {"seconds": time.monotonic() - started}), flush=True)
"""


class PodClient:
    """A process of a pod that keeps its connection, unless `fresh` asks for a new connection."""

    def __init__(self, container: LabContainer) -> None:
        self._process = container.spawn(
            [sys.executable, "-c", _ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, what: str, *, fresh: bool = False, seconds: float = 5.0) -> dict[str, Any]:
        """Return what came of one question: `said`, or `reason`, `code` and `message`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        command = {"what": what, "fresh": fresh, "seconds": seconds}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def asking(container: LabContainer) -> Iterator[PodClient]:
    client = PodClient(container)
    try:
        yield client
    finally:
        client.close()


def probe(agent: LabAgent, path: str) -> tuple[int, str]:
    """Status and text of a probe."""
    try:
        with urllib.request.urlopen(f"{agent.metrics_url}{path}", timeout=20) as answer:
            return answer.status, answer.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()
