"""The real agent as a process of the lab."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.lab.launch import Launch
from tests.support.lab.processes import LabProcess, Processes, entries, wait_exited

COMMAND = (sys.executable, "-OO", "-m", "netutil.agent")
"""As the image runs it (PYTHONOPTIMIZE in the Dockerfile): without docstrings in memory."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_COUNT = 1_000
_FIRST_PORT = 12_000 + _COUNT * (_WORKER % 20)
_taken = itertools.count(secrets.randbelow(_COUNT))
_READY_SECONDS = 30.0
_STOP_SECONDS = 15.0


class AgentFailed(Exception):
    """The agent ended, or did not listen in time; the text carries its log."""


class LabAgent:
    """A running agent that listens."""

    def __init__(
        self,
        processes: Processes,
        command: Sequence[str],
        *,
        socket_path: Path,
        admin_socket: Path,
        metrics_address: str,
        log: Path,
        cgroups: Sequence[str],
    ) -> None:
        self.socket = socket_path
        self.admin_socket = admin_socket
        self.metrics_url = f"http://{metrics_address}" if metrics_address else ""
        self._log = log
        self._before = _inode(socket_path)
        inherited = {k: v for k, v in os.environb.items() if not k.startswith(b"NETUTIL_")}
        env = entries([key + b"=" + value for key, value in inherited.items()])
        with log.open("wb") as output:
            self._process: LabProcess = processes.spawn(
                Launch(argv=tuple(command), env=env, cgroups=tuple(cgroups)),
                stdout=output,
                stderr=output,
                # A Ctrl-C at the terminal is for the lab, which then stops the agent.
                start_new_session=True,
            )
        self.pid = self._process.host_pid

    def wait_ready(self) -> None:
        """Return when this agent, not one before it, takes connections at the pods' socket."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._listens():
            code = self._process.poll()
            if code is not None:
                raise AgentFailed(f"the agent ended with {code}:\n{self.stderr_text()}")
            if time.monotonic() > deadline:
                self.kill()
                raise AgentFailed(f"the agent does not listen:\n{self.stderr_text()}")
            time.sleep(0.01)

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit code. Kills it after 15 s (AgentFailed)."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AgentFailed(f"the agent does not stop:\n{self.stderr_text()}") from None

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self._process.kill()
        self._process.wait()
        wait_exited(self.pid)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stderr_text(self) -> str:
        """All that it wrote so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _listens(self) -> bool:
        if _inode(self.socket) in (None, self._before):
            return False
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0


def free_address() -> str:
    """A loopback address whose port nothing else takes before it is used.

    It is not one of those that the kernel gives to a bind to port 0 (ip_local_port_range
    begins at 32768), and each process that runs tests beside others has ports of its own.
    """
    for place in itertools.islice(_taken, _COUNT):
        port = _FIRST_PORT + place % _COUNT
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise OSError(errno.EADDRINUSE, f"no port from {_FIRST_PORT} on is free for {_COUNT}")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
