"""Many calls in flight at once, by h2load of nghttp2, from a pod."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass

from bench.load_generator import SERVICE
from tests.support.lab import LabContainer, LabProcess

# h2load takes the request from a file, and its own pid is known only in its own process. The
# message is field 1, a string; each of the sidecar's requests has its pid there.
_PROGRAM = """
import os, sys
pid = str(os.getpid()).encode() if sys.argv[1] == "own-pid" else b""
message = b"\\x0a" + bytes([len(pid)]) + pid if pid else b""
request = os.memfd_create("request", 0)
os.write(request, b"\\0" + len(message).to_bytes(4, "big") + message)
os.execvp("h2load", ["h2load", "-d", f"/proc/self/fd/{request}", *sys.argv[2:]])
"""
_TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """The number of connections, and of calls in flight on each."""

    connections: int
    streams: int

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of h2load."""
        return ("-c", str(self.connections), "-m", str(self.streams))

    def __str__(self) -> str:
        each = "call" if self.streams == 1 else "calls"
        return f"{self.connections} connections with {self.streams} {each} each"


def calls_per_second(
    container: LabContainer,
    socket: str,
    method: str,
    load: Load,
    *,
    calls: int,
    own_pid: bool = False,
) -> float:
    """Return the rate of that many calls. RuntimeError if one was refused or brought nothing."""
    argv = _argv(socket, method, load, "-n", str(calls), own_pid=own_pid)
    done = container.run(argv, timeout=_TIMEOUT_SECONDS)
    text = done.stdout.decode()
    rate = re.search(r"finished in [^,]+, ([\d.]+) req/s", text)
    data = re.search(r"\((\d+)\) data", text)
    failed = re.search(r"(\d+) failed", text)
    if not (rate and data and failed and int(data[1]) and failed[1] == "0"):
        raise RuntimeError(f"h2load: {text} {done.stderr.decode()}")
    return float(rate[1])


def flood(
    container: LabContainer, socket: str, method: str, load: Load, seconds: int
) -> LabProcess:
    """Start a load that asks for that long, refused or not; the caller ends it."""
    argv = _argv(socket, method, load, "-D", str(seconds), own_pid=False)
    return container.spawn(argv, stdout=subprocess.DEVNULL)


def _argv(socket: str, method: str, load: Load, *flags: str, own_pid: bool) -> list[str]:
    return [
        *(sys.executable, "-I", "-S", "-c", _PROGRAM, "own-pid" if own_pid else "no-pid"),
        *(*flags, *load.flags, "-H", "content-type: application/grpc", "-H", "te: trailers"),
        *("-B", f"unix:{socket}", f"http://localhost{SERVICE}{method}"),
    ]
