"""The C load generator: compiled once, started in a pod, given its calls on standard input."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.support.lab import LabContainer, LabProcess

SERVICE = "/v1alpha.NetUtil/"
AGENT_SOCKET = "/etc/netutil/net.sock"
_SOURCE = Path(__file__).with_name("load_generator.c")
_MADE = _SOURCE.parent.parent / "build" / "load_generator"

How = Literal["kept", "fresh", "hold", "watch"]


@dataclass(frozen=True, slots=True)
class Calls:
    """The result of one command; the times are seconds, `bytes` those of the last answer."""

    calls: int
    seconds: float
    p50: float
    p99: float
    max: float
    bytes: int

    @property
    def mean(self) -> float:
        """Seconds for one call."""
        return self.seconds / self.calls


class LoadGenerator:
    """One process in a container, with one connection that it keeps."""

    def __init__(self, container: LabContainer, socket: str = AGENT_SOCKET) -> None:
        self._process: LabProcess = container.spawn(
            [str(made()), socket], stdin=subprocess.PIPE, stderr=None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, how: How, method: str, calls: int, *, own_pid: bool = False) -> None:
        """Let it begin; `result` waits for the end. With `own_pid` each request has its pid."""
        assert self._process.stdin is not None
        pid = " own-pid" if own_pid else ""
        self._process.stdin.write(f"{how} {SERVICE}{method} {calls}{pid}\n".encode())
        self._process.stdin.flush()

    def result(self) -> Calls:
        """Return what became of the last command. RuntimeError if a call was refused."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(
                f"a call failed: the load generator ended with {code}, see what it wrote"
            )
        return Calls(**json.loads(line))

    def ask(self, how: How, method: str, calls: int, *, own_pid: bool = False) -> Calls:
        """Make that many calls."""
        self.start(how, method, calls, own_pid=own_pid)
        return self.result()

    def close(self) -> None:
        """End the process and its connections."""
        self._process.kill()
        self._process.communicate()


def made() -> Path:
    """Return the program, compiled if its source is newer. Raises CalledProcessError."""
    if not _MADE.exists() or _MADE.stat().st_mtime < _SOURCE.stat().st_mtime:
        _MADE.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", str(_MADE), str(_SOURCE)], check=True)
    return _MADE
