"""Starting processes through launch.py: long-lived ones by one server, others one by one."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.support.lab import launch as launch_script
from tests.support.lab.launch import KILL, Launch

Environment = Mapping[str, str | bytes] | Sequence[bytes]
Stream = int | IO[bytes] | None

_SCRIPT = [sys.executable, "-I", "-S", launch_script.__file__]
_TIMEOUT_SECONDS = 30.0


class LaunchFailed(Exception):
    """A process could not be started; the text says what failed."""


class LabProcess(subprocess.Popen[bytes]):
    """A process somewhere in the lab, seen through the small process that waits for it.

    Signals, streams and the exit code pass through. `pid` is the waiting
    process on the host; `host_pid` is the program itself, as the host sees it.
    """

    host_pid: int

    def kill(self) -> None:
        """Kill the program; the waiting process then ends as it did, and leaves no orphan."""
        self.send_signal(KILL)


def entries(environment: Environment) -> tuple[str, ...]:
    """An environment as launch.py takes it. A list is passed unchanged, "=" or not."""
    if isinstance(environment, Mapping):
        raw = [key.encode() + b"=" + _as_bytes(value) for key, value in environment.items()]
    else:
        raw = list(environment)
    return tuple(entry.decode("latin-1") for entry in raw)


def arguments(argv: Sequence[str | bytes]) -> tuple[str, ...]:
    """Arguments as launch.py takes them."""
    return tuple(_as_bytes(word).decode("latin-1") for word in argv)


class Processes:
    """All processes of one lab. They die with it, even if it is killed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spawned: list[LabProcess] = []
        # The kernel notifies the holder of the other end when this process exits.
        self._alive, self._lifeline = os.pipe()
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(_TIMEOUT_SECONDS)
        with theirs:
            self._server = subprocess.Popen(
                [*_SCRIPT, "serve", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._answers = self._channel.makefile("rb")

    def start(self, launch: Launch) -> int:
        """Start a long-lived process without streams and return its pid on the host."""
        with self._lock:
            self._channel.sendall(launch.to_json())
            answer = json.loads(self._answers.readline() or b'{"error": "the server has exited"}')
        if "error" in answer:
            raise LaunchFailed(answer["error"])
        return int(answer["pid"])

    def spawn(
        self,
        launch: Launch,
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> LabProcess:
        """Start a process and return once its program runs."""
        request = os.memfd_create("netutil-lab", os.MFD_CLOEXEC)
        report, reporting = os.pipe()
        with open(report, "rb") as answer, open(request, "w+b") as file:
            try:
                file.write(launch.to_json())
                file.flush()
                descriptors = [request, reporting, self._alive]
                process = LabProcess(
                    [*_SCRIPT, "once", *map(str, descriptors)],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=[*descriptors, *pass_fds],
                    start_new_session=start_new_session,
                )
            finally:
                os.close(reporting)
            with self._lock:
                self._spawned.append(process)
            text = answer.read()
        if not text.isdigit():
            _end(process)
            raise LaunchFailed(text.decode(errors="replace") or "its starter died")
        process.host_pid = int(text)
        return process

    def run(
        self,
        launch: Launch,
        *,
        input: bytes | None = None,  # noqa: A002 - as subprocess.run calls it
        timeout: float = _TIMEOUT_SECONDS,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a process to its end. TimeoutExpired kills it."""
        stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
        with self.spawn(launch, stdin=stdin) as process:
            try:
                output, errors = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        with self._lock:
            self._spawned.remove(process)
        return subprocess.CompletedProcess(launch.argv, process.returncode, output, errors)

    def close(self) -> None:
        """Kill all and wait until they have exited."""
        for process in self._spawned:
            _end(process)
        self._answers.close()
        self._channel.close()
        os.close(self._lifeline)
        os.close(self._alive)
        try:
            self._server.wait(_TIMEOUT_SECONDS)
        finally:
            self._server.kill()
            self._server.wait()


def wait_exited(pid: int, timeout: float = _TIMEOUT_SECONDS) -> None:
    """Wait until a process has ended (it may still be a zombie). TimeoutError if it does not."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        end = select.poll()
        end.register(process, select.POLLIN)
        if not end.poll(timeout * 1000):
            raise TimeoutError(f"process {pid} does not end")
    finally:
        os.close(process)


def inside_pid(pid: int) -> int:
    """The pid of a process as its innermost PID namespace shows it (NSpid, proc(5))."""
    for line in (
        Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").split("\n")
    ):
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise ProcessLookupError(pid)


def _end(process: LabProcess) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):
                stream.close()


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
