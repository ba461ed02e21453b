"""Calls a running agent from a pod, and asserts that no answer has a fact of the victim."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.lab import LabContainer, LabProcess

SECRET = "planted-4d1e7f-secret"  # noqa: S105 - planted, to be looked for
"""Is in the environment, the labels and the networks of the victims, and in no other place."""
POD_CLIENT = str(Path(__file__).with_name("pod_client.py"))
SOCKET = "/etc/netutil/net.sock"
Call = tuple[str, dict[str, Any]]
EVERYTHING: tuple[Call, ...] = (
    ("GetEnv", {}),
    ("GetCPUInfo", {"topology": True}),
    ("GetNetworkStatus", {}),
    ("GetInterfaces", {}),
    ("GetHugepages", {}),
    ("GetPod", {}),
    ("GetAll", {}),
)


def everything_of(pid: int | str) -> tuple[Call, ...]:
    """Every question, about a process that a pid names."""
    return tuple((method, fields | {"pid": str(pid)}) for method, fields in EVERYTHING)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call's end: the status code, the reason of an error, the answer."""

    code: str
    reason: str
    sentence: str
    answer: dict[str, Any]

    @property
    def refusal(self) -> tuple[str, str]:
        """Code and reason."""
        return self.code, self.reason


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The ends of several calls over one connection, and every byte that the agent sent."""

    calls: tuple[Outcome, ...]
    came: bytes

    @classmethod
    def from_output(cls, output: bytes) -> Self:
        """Return the last line of the output of pod_client.py, parsed."""
        found = json.loads(output.splitlines()[-1])
        came = b"".join(base64.b64decode(o.get("raw", "")) + _decoded(o) for o in found)
        fields = ("code", "reason", "message", "answer")
        return cls(tuple(Outcome(*(o[f] for f in fields)) for o in found), came)

    def refusals(self) -> set[tuple[str, str]]:
        """Code and reason of each call; an answered one is ("OK", "")."""
        return {one.refusal for one in self.calls}


def _decoded(outcome: dict[str, Any]) -> bytes:
    # Headers are packed on the wire; what they say is looked through as well.
    return base64.b64decode(outcome["bytes"]) + str(outcome["message"]).encode()


def task(
    calls: Sequence[Call],
    *,
    before: str = "",
    between: str = "",
    fd: int | None = None,
    go_ahead: bool = False,
    socket: str = SOCKET,
) -> bytes:
    """The line that pod_client.py takes."""
    fields = {
        "before": before,
        "between": between,
        "fd": fd,
        "go_ahead": go_ahead,
        "calls": list(calls),
        "socket": socket,
    }
    return json.dumps(fields).encode() + b"\n"


def asked(
    container: LabContainer,
    *calls: Call,
    before: str = "",
    between: str = "",
    uid: int | None = None,
    gid: int | None = None,
) -> Outcomes:
    """Ask from a new process in a container, to its end."""
    line = task(calls, before=before, between=between)
    done = container.run([sys.executable, POD_CLIENT], input=line, uid=uid, gid=gid, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return Outcomes.from_output(done.stdout)


class ConnectedClient:
    """A process in a container that is connected, and calls when `ask` writes a line."""

    def __init__(self, process: LabProcess, line: bytes) -> None:
        self.process = process
        self._send(line)
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == b"connected\n", said

    @classmethod
    def connected(
        cls, container: LabContainer, *calls: Call, before: str = "", between: str = ""
    ) -> Self:
        """Return one once it is connected."""
        argv = [sys.executable, POD_CLIENT]
        process = container.spawn(argv, stdin=subprocess.PIPE, stderr=None)
        return cls(process, task(calls, before=before, between=between, go_ahead=True))

    def go(self) -> None:
        """Let it go on, and do not wait for it."""
        self._send(b"\n")

    def ask(self) -> Outcomes:
        """Let it ask, and return what it got."""
        output, _ = self.process.communicate(b"\n", timeout=60)
        return Outcomes.from_output(output)

    def _send(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        self.process.stdin.flush()


def assert_nothing_leaked(outcomes: Outcomes) -> None:
    """Assert that the received bytes do not contain the secret."""
    assert outcomes.came
    assert SECRET.encode() not in outcomes.came
