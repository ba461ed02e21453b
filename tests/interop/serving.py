"""A process of `server.py`, for the tests."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

from tests.support.repository import ROOT

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class ServerProcess:
    """A server that runs. `path` is its socket's."""

    path: Path
    process: subprocess.Popen[str]

    def variable(self, name: str) -> int:
        """Return the server's report on itself: CALLS or OPEN_WATCHES."""
        with grpc.insecure_channel(f"unix:{self.path}") as channel:
            stub = netutil_pb2_grpc.NetUtilStub(channel)
            found = stub.GetEnv(
                api.EnvRequest(key=name), wait_for_ready=True, timeout=TIMEOUT_SECONDS
            )
        return int(found.envs[name])

    def wait_for(self, name: str, condition: Callable[[int], bool]) -> None:
        """Wait until a variable is as it should be."""
        ends = time.monotonic() + TIMEOUT_SECONDS
        while not condition(self.variable(name)):
            assert time.monotonic() < ends, f"{name} is {self.variable(name)}"
            time.sleep(0.02)

    def terminate(self) -> None:
        """Send SIGTERM, and wait until it has ended as it should."""
        self.process.terminate()
        assert self.process.wait(TIMEOUT_SECONDS) == 0


@contextmanager
def serving(path: Path, grace: float = 10.0) -> Iterator[ServerProcess]:
    command = [sys.executable, "-m", "tests.interop.server", str(path), str(grace)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "serving\n"
        yield ServerProcess(path, process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
