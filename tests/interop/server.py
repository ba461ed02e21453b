"""A server program to be asked by the clients: `python -m tests.interop.server SOCKET GRACE`.

Serves v1alpha.NetUtil with answers of its own, and health, by `agent/grpcserver`. It prints a line
when the socket is there, which it renames into place as the agent does, over that of a server that
still runs. SIGTERM ends it: calls that are open have GRACE seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_status import rpc_status
from netutil.agent.grpcserver import Server
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

SERVICE = "v1alpha.NetUtil"
POD_NAME = "upf"
SENTENCE = "The process has no environment variable 'NOT_SET' (100 % sure, naïve or not)."
ENVIRONMENT = {f"LARGE_{number}": "x" * 100_000 for number in range(10)}
"""About 1 MB."""
ENVIRONMENT_BYTES = sum(len(key) + len(value) for key, value in ENVIRONMENT.items())
SLOW_SECONDS = 0.2


class Answers(netutil_pb2_grpc.NetUtilServicer):
    """Answers ready-made; the variables CALLS and OPEN_WATCHES describe the server itself."""

    def __init__(self) -> None:
        self.calls = 0
        self.open_watches = 0

    async def GetPod(self, request: api.PodRequest, context: Any) -> api.PodResponse:
        """Return the pod; metadata that begins with `echo-` goes back, as initial and trailing."""
        self.calls += 1
        echo = [(key, value) for key, value in context.invocation_metadata() if key[:5] == "echo-"]
        if echo:
            await context.send_initial_metadata([(f"initial-{key}", value) for key, value in echo])
        context.set_trailing_metadata([*echo, ("request-encoding", context.head.encoding)])
        return api.PodResponse(name=POD_NAME)

    async def GetEnv(self, request: api.EnvRequest, context: Any) -> api.EnvResponse:
        """Return a variable, or an environment of 1 MB."""
        counted = {"CALLS": self.calls, "OPEN_WATCHES": self.open_watches}
        if request.key in counted:
            return api.EnvResponse(envs={request.key: str(counted[request.key])})
        if request.key:
            await context.abort_with_status(rpc_status.to_status(_not_set()))
        return api.EnvResponse(envs=ENVIRONMENT)

    async def GetHugepages(
        self, request: api.HugepagesRequest, context: Any
    ) -> api.HugepagesResponse:
        """Return nothing, after a time."""
        await asyncio.sleep(SLOW_SECONDS)
        self.calls += 1
        return api.HugepagesResponse()

    async def Watch(
        self, request: api.WatchRequest, context: Any
    ) -> AsyncIterator[api.WatchResponse]:
        """Return one snapshot, and no other until the peer ends it."""
        self.open_watches += 1
        try:
            pod = api.PodResponse(name=POD_NAME)
            yield api.WatchResponse(snapshot=api.AllResponse(pod=pod), version=1)
            await asyncio.Event().wait()
        finally:
            self.open_watches -= 1


def _not_set() -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(domain="netutil", reason="VARIABLE_NOT_SET"))
    return status_pb2.Status(code=code_pb2.NOT_FOUND, message=SENTENCE, details=[detail])


class Listener:
    """A Unix socket at a path, and the connections that came by it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        place = path.with_name(f"{path.name}.{os.getpid()}")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind(str(place))
        self._socket.listen(1024)
        self._inode = place.stat().st_ino
        place.rename(path)

    async def serve(self, server: Server) -> None:
        """Accept until cancelled, and then what had connected before."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                accepted, _ = await loop.sock_accept(self._socket)
                server.serve(accepted, None)
        finally:
            self._unlink()
            with suppress(BlockingIOError):
                while True:
                    accepted, _ = self._socket.accept()
                    accepted.setblocking(False)
                    server.serve(accepted, None)
            self._socket.close()

    def _unlink(self) -> None:
        """Remove the path unless another server has taken it over."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()


async def main(path: str, grace: float) -> None:
    server = Server()
    answers = Answers()  # type: ignore[abstract]
    netutil_pb2_grpc.add_NetUtilServicer_to_server(answers, server)  # type: ignore[arg-type]
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in ("", SERVICE):
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    accepting = asyncio.create_task(Listener(Path(path)).serve(server))
    print("serving", flush=True)
    await terminated.wait()
    accepting.cancel()
    with suppress(asyncio.CancelledError):
        await accepting
    await server.stop(grace)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
