"""The synchronous clients. Everything but the waiting is in the other modules."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType
from typing import Any, Self

import grpc
from netutil.client import questions
from netutil.client.connection import (
    CHANNEL_OPTIONS,
    OPERATOR,
    PUBLIC,
    Owner,
    Place,
    Settings,
    target,
)
from netutil.client.devices import All, Hugepages, Interface, Interfaces, Resources
from netutil.client.errors import NetUtilError
from netutil.client.observations import Completing, Observation
from netutil.client.questions import Answer, Question
from netutil.client.results import CPU, Environment, NetworkStatus, NodePods, Pod
from netutil.client.retry import Attempts, explained
from netutil.client.translation import error_of
from netutil.client.waiting import Waiting


class Connection:
    """One connection to the agent, opened at the first question. Safe for many threads.

    The agent identifies the process that opened it, so a client asked in a process
    forked after that raises RuntimeError; so does a closed one.
    """

    def __init__(
        self, place: Place, socket: str | os.PathLike[str] | None, timeout_seconds: float
    ) -> None:
        self._settings = Settings.checked(place, socket, timeout_seconds)
        self._opening = threading.Lock()
        self._owner: Owner | None = None
        self._channel: grpc.Channel | None = None
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every call on it. A second close does nothing."""
        with self._opening:
            self._closed = True
            if self._channel is not None:
                self._channel.close()

    def ask(self, question: Question[Answer]) -> Answer:
        """The answer, asked for until the timeout; raises an error of `netutil.client.errors`."""
        method = self._method(question)
        attempts = Attempts(self._settings)
        while True:
            try:
                response = method(question.request, timeout=attempts.remaining_seconds())
            except grpc.RpcError as failure:
                time.sleep(attempts.pause_seconds_after(failure))
            else:
                return question.read(response)

    def _opened(self) -> grpc.Channel:
        """The channel, made at the first question. Called with the lock held."""
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._owner is None or self._channel is None:
            self._owner = Owner()
            self._channel = grpc.insecure_channel(target(self._settings.path), CHANNEL_OPTIONS)
        self._owner.check()
        return self._channel

    def _method(self, question: Question[Any]) -> grpc.UnaryUnaryMultiCallable[Any, Any]:
        with self._opening:
            channel = self._opened()
            method = self._methods.get(question.method)
            if method is None:
                method = self._methods[question.method] = channel.unary_unary(
                    question.method,
                    request_serializer=type(question.request).SerializeToString,
                    response_deserializer=question.response_type.FromString,
                )
            return method


class Stream:
    """Observations of one Watch, to be iterated over. `close` may be called from any thread."""

    def __init__(self, call: Any, settings: Settings) -> None:
        self._call = call
        self._settings = settings
        self._completing = Completing()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Observation:
        try:
            response = next(self._call)
        except grpc.FutureCancelledError:
            raise StopIteration from None
        except grpc.RpcError as failure:
            if failure.code() is grpc.StatusCode.CANCELLED:  # closed by its owner
                raise StopIteration from None
            raise explained(error_of(failure), self._settings) from None
        return self._completing.whole(questions.WATCH.read(response))

    def close(self) -> None:
        """End the stream: the iteration ends."""
        self._call.cancel()


class Client(Connection):
    """Asks the agent about the calling process, or with `pid` about another one of its pod.

    `socket` defaults to $NETUTIL_SOCKET, else /etc/netutil/net.sock. `timeout_seconds`
    bounds each call with all its attempts. `pid` is a number in the caller's own PID
    namespace. Every method raises only errors of `netutil.client.errors`.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout_seconds: float = 5.0
    ) -> None:
        super().__init__(PUBLIC, socket, timeout_seconds)

    def cpu(self, pid: int | None = None, *, topology: bool = False) -> CPU:
        """The CPUs of the process's container; with `topology` each of them, and the exclusive."""
        return self.ask(questions.cpu(pid, topology=topology))

    def environment(self, pid: int | None = None) -> Environment:
        """All variables that the process was started with."""
        return self.ask(questions.environment(pid))

    def variable(self, key: str, pid: int | None = None) -> str:
        """The value of one variable; NotFound if it is not set."""
        return self.ask(questions.variable(key, pid)).envs[key]

    def network_status(self, interface: str | None = None, pid: int | None = None) -> NetworkStatus:
        """The pod's networks, or the one of that interface; NotFound if there is none."""
        return self.ask(questions.network_status(interface, pid))

    def pod(self, pid: int | None = None) -> Pod:
        """The pod and container of the process."""
        return self.ask(questions.pod(pid))

    def interfaces(self, interface: str | None = None, pid: int | None = None) -> Interfaces:
        """The pod's interfaces, or the one of that name; NotFound if there is none."""
        return self.ask(questions.interfaces(interface, pid))

    def hugepages(self, pid: int | None = None) -> Hugepages:
        """Huge pages of the pod's spec, of the process's container, and of the node."""
        return self.ask(questions.hugepages(pid))

    def resources(self, pid: int | None = None) -> Resources:
        """Devices, exclusive CPUs and memory that the kubelet gave to the process's container."""
        return self.ask(questions.resources(pid))

    def all(self, pid: int | None = None) -> All:
        """All of it in one round trip; a part that could not be had is None, and an error."""
        return self.ask(questions.everything(pid))

    def watch(self, *, longest_seconds: float | None = None) -> Stream:
        """All about this process at once, and again whenever a part of it changes.

        There is no timeout unless `longest_seconds` says one. The iteration raises what ends
        the stream: `Unavailable` when the agent restarts, NotFound with reason POD_GONE when
        the pod has left the node. `netutil.client.Cached` comes back by itself.
        """
        with self._opening:
            watch = self._opened().unary_stream(
                questions.WATCH.method,
                request_serializer=type(questions.WATCH.request).SerializeToString,
                response_deserializer=questions.WATCH.response_type.FromString,
            )
        return Stream(watch(questions.WATCH.request, timeout=longest_seconds), self._settings)

    def wait_for_interface(self, interface: str, timeout_seconds: float = 60.0) -> Interface:
        """The interface, as soon as it is there: in the network-status annotation, or live.

        NotFound if it does not come in time; `Unavailable` if the agent was not there either.
        """
        waiting = Waiting(interface, timeout_seconds)
        while True:
            try:
                with self.watch(longest_seconds=waiting.remaining_seconds()) as stream:
                    for observation in stream:
                        if (found := waiting.look(observation)) is not None:
                            return found
            except NetUtilError as error:
                time.sleep(waiting.pause_seconds_after(error))


class NodeClient(Connection):
    """Asks the agent about its whole node, over the operator socket; for the node's root only.

    `socket` defaults to $NETUTIL_ADMIN_SOCKET, else /run/netutil-admin/admin.sock.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout_seconds: float = 5.0
    ) -> None:
        super().__init__(OPERATOR, socket, timeout_seconds)

    def pods(self) -> NodePods:
        """Every pod on the node."""
        return self.ask(questions.node_pods())
