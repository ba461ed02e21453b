"""The running driver: its services, its sockets, its end.

All services are served on both sockets, by one server. Only root reaches the sockets, and the
kubelet is the only caller.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from types import FrameType

import grpc
from netutil.agent.csi.config import Config, driver_version
from netutil.agent.csi.errors import StartError
from netutil.agent.csi.identity import IdentityService
from netutil.agent.csi.node import NodeService
from netutil.agent.csi.registration import RegistrationService
from netutil.agent.csi.sockets import (
    BoundSocket,
    choose_registration_path,
    move_into_place,
    temporary_path,
    unlink_if_ours,
)
from netutil.agent.csi.volumes import Volumes
from netutil.csi.v1 import csi_pb2_grpc, pluginregistration_pb2_grpc

_LOG = logging.getLogger(__name__)

_THREADS = 4
MAX_CALLS = 512
"""Calls that run or wait; others get RESOURCE_EXHAUSTED, after which the kubelet calls again. A
kubelet mounts the volumes of all its pods at once, 110 by default."""
MAX_REQUEST_BYTES = 4 * 2**20
"""More than a pod can have: etcd takes requests of 1.5 MiB. The pod with the largest attributes
gets the sentence about attributes, not the server's about sizes."""
_STOP_SECONDS = 5.0
_ONLY_OWNER_READS_AND_WRITES = 0o177
_DIRECTORIES_ARE_NOT_FOR_OTHERS = 0o027


def run(config: Config) -> int:
    """Serve until a signal (0), or until the container must be restarted (1).

    Raises StartError if a socket cannot be bound.
    """
    with _ending() as ending:
        server = _server(config, lambda: ending.end(1))
        try:
            registration = _serve(server, config)
            _LOG.info(
                "csi: %s %s serves %s on node %s",
                config.name,
                driver_version(),
                config.source,
                config.node_name,
            )
            code = ending.wait()
            # First the registration: the kubelet then calls no more.
            _unregister(registration)
        finally:
            server.stop(_STOP_SECONDS).wait(2 * _STOP_SECONDS)
    _LOG.info("csi: ended; the mounts stay")
    return code


def _server(config: Config, end: Callable[[], None]) -> grpc.Server:
    server = grpc.server(
        futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="csi"),
        maximum_concurrent_rpcs=MAX_CALLS,
        options=(("grpc.max_receive_message_length", MAX_REQUEST_BYTES),),
    )
    volumes = Volumes(config.source)
    node = NodeService(config.node_id, config.pods, volumes, end)
    csi_pb2_grpc.add_NodeServicer_to_server(node, server)
    identity = IdentityService(config.name, driver_version())
    csi_pb2_grpc.add_IdentityServicer_to_server(identity, server)
    pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(
        RegistrationService(config.name, config.endpoint, end), server
    )
    return server


def _serve(server: grpc.Server, config: Config) -> BoundSocket:
    """Start the server and put its sockets in place; return the registration socket.

    The driver's own socket is in place before the kubelet can know of it.
    """
    endpoint = temporary_path(os.path.dirname(config.endpoint), "csi")
    registration = temporary_path(config.registry, config.name)
    try:
        previous = os.umask(_ONLY_OWNER_READS_AND_WRITES)
        try:
            for path in (endpoint, registration):
                _bind(server, path)
        finally:
            os.umask(previous)
        os.umask(_DIRECTORIES_ARE_NOT_FOR_OTHERS)
        server.start()
        move_into_place(endpoint, config.endpoint)
        path = choose_registration_path(config.registry, config.name)
        return move_into_place(registration, path)
    except OSError as error:
        raise StartError(f"cannot bind {error.filename}: {error.strerror}") from None


def _bind(server: grpc.Server, path: str) -> None:
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError:  # gRPC says no more than that it failed
        directory = os.path.dirname(path)
        raise StartError(
            f"cannot bind a socket in {directory}: it must be a volume mount of the container, and"
            " writable"
        ) from None


def _unregister(registration: BoundSocket) -> None:
    try:
        if not unlink_if_ours(registration):
            _LOG.info("csi: another instance took over %s", registration.path)
    except OSError as error:
        _LOG.warning("csi: cannot remove %s: %s", registration.path, error.strerror)


class _Ending:
    """The exit code, once a thread or a signal has given one.

    Its pipe is open for ever: threads of the server may outlive what waits.
    """

    def __init__(self) -> None:
        self._codes: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)

    def end(self, code: int) -> None:
        """Have `wait` return this code, unless it has another one before."""
        self._codes.put(code)
        with suppress(BlockingIOError):  # full: it is readable
            os.write(self.writer, b"\0")

    def wait(self) -> int:
        """Return the first code, once there is one.

        A thread that is about to wait for a queue misses a signal that comes then. The kernel's
        signal handler writes to the pipe (`signal.set_wakeup_fd`), so a read of it misses none.
        """
        while self._codes.empty():
            os.read(self._reader, 1)
        return self._codes.get()


@contextmanager
def _ending() -> Iterator[_Ending]:
    """Let SIGTERM and SIGINT end the driver within the block, with 0."""
    ending = _Ending()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.end(0)

    woken = signal.set_wakeup_fd(ending.writer, warn_on_full_buffer=False)
    previous = [(number, signal.signal(number, end)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        yield ending
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
