"""Follows the kubelet's WatchPods over its Unix socket. Used on one event loop.

Each stream begins with all pods, so nothing is carried over from one to the next, and an
event that was lost is made good when the stream is begun anew. The kubelet takes HTTP/2 pings
for an attack if they come more often than every five minutes (gRPC's default for servers
in Go), so a quiet stream is proven by a call of its own: GetPod, for no pod.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError
from netutil.agent.errors import Unavailable
from netutil.agent.local_socket import connection_problem
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.source import Take
from netutil.agent.pods.store import PodStore
from netutil.agent.podsapi import failures
from netutil.agent.podsapi.model import decode_pod, decode_uid
from netutil.podsapi.v1alpha1 import pods_pb2

_SERVICE = "/v1alpha1.Pods/"
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment has no business here
    ("grpc.max_receive_message_length", failures.LARGEST_EVENT_BYTES),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_retries", 0),  # who follows has pauses of its own
    ("grpc.use_local_subchannel_pool", 1),  # a new channel connects anew
)
# What a kubelet that is well says to a call for no pod.
_ALIVE = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
)

Stream = grpc.aio.UnaryStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait for all pods, how long a stream lasts, and how long quiet is believed."""

    initial_seconds: float = 30.0
    stream_seconds: float = 900.0
    quiet_seconds: float = 60.0
    probe_seconds: float = 5.0


class PodsApiSource:
    """Pods as the kubelet pushes them."""

    first_pause_seconds = 0.5
    longest_pause_seconds = 5.0

    def __init__(
        self, socket_path: str, timing: Timing = Timing(), flaws: Flaws | None = None
    ) -> None:
        """`flaws` counts what of the pods is not understood."""
        self._path = socket_path
        self._flaws = flaws or Flaws()
        self._timing = timing
        self._store = PodStore()

    def describe(self) -> str:
        """Return the path."""
        return self._path

    async def follow(self, take: Take) -> None:
        """Hand over the kubelet's pods until the stream ends. Raises `Unavailable`."""
        if (problem := connection_problem(self._path)) is not None:
            raise failures.not_connected(problem, self._path)
        # A channel for each stream: one to an older kubelet's socket could outlive it.
        address = "unix:" + quote(self._path)
        async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
            # Without serializers: bytes go and come, and what breaks in them is told here.
            watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
                _SERVICE + "WatchPods"
            )
            stream = watch(pods_pb2.WatchPodsRequest().SerializeToString())
            try:
                async with asyncio.timeout(self._timing.initial_seconds):
                    await self._begin(stream, take)
                await self._go_on(channel, stream, take)
            except TimeoutError:
                raise failures.too_slow(self._timing.initial_seconds, self._path) from None
            except PodListMalformed as error:
                raise failures.malformed(error, self._path) from None
            except grpc.aio.AioRpcError as error:
                raise self._why(error) from None
            finally:
                stream.cancel()

    async def close(self) -> None:
        """Do nothing: `follow` lets go of what it holds."""

    async def _begin(self, stream: Stream, take: Take) -> None:
        """Read all pods, and hand them over together."""
        store = PodStore()
        while (event := _event(await stream.read())) is not None:
            if event.type == pods_pb2.INITIAL_SYNC_COMPLETE:
                self._store.replace(store.pods)
                take(self._store.pods, datetime.now(UTC))
                return
            _apply(event, store, self._flaws)
        raise failures.ended_early(self._path)

    async def _go_on(self, channel: grpc.aio.Channel, stream: Stream, take: Take) -> None:
        """Hand over each change, until the stream ends or is to be begun anew."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timing.stream_seconds
        while (remaining := ends_at - loop.time()) > 0:
            reading = asyncio.ensure_future(stream.read())
            try:
                quiet = min(self._timing.quiet_seconds, remaining)
                while not (await asyncio.wait({reading}, timeout=quiet))[0]:
                    if loop.time() >= ends_at:
                        return
                    await self._prove(channel)
                    take(self._store.pods, datetime.now(UTC))
                event = _event(reading.result())
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            if event is None:
                return
            _apply(event, self._store, self._flaws)
            take(self._store.pods, datetime.now(UTC))

    async def _prove(self, channel: grpc.aio.Channel) -> None:
        """Return if the kubelet answers; raise if it does not."""
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            _SERVICE + "GetPod"
        )
        request = pods_pb2.GetPodRequest().SerializeToString()
        try:
            await ask(request, timeout=self._timing.probe_seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise failures.stuck(self._timing.probe_seconds, self._path) from None
            if error.code() not in _ALIVE:
                raise

    def _why(self, error: grpc.aio.AioRpcError) -> Unavailable:
        # gRPC's text of a failed connect is for humans and changes: ask the kernel.
        lost = error.code() is grpc.StatusCode.UNAVAILABLE
        if lost and (problem := connection_problem(self._path)) is not None:
            return failures.not_connected(problem, self._path)
        return failures.answered(error, self._path)


def _event(read: object) -> pods_pb2.WatchPodsEvent | None:
    """Return an event, None at the end of the stream. Raises `PodListMalformed`."""
    if read is grpc.aio.EOF:
        return None
    try:
        return pods_pb2.WatchPodsEvent.FromString(cast(bytes, read))
    except DecodeError as error:
        raise PodListMalformed(f"an event is none: {error}") from None


def _apply(event: pods_pb2.WatchPodsEvent, store: PodStore, flaws: Flaws) -> None:
    """Do to the store what an event says. Raises `PodListMalformed`.

    A type that is not known here changes nothing; one that is missing is that of another API.
    """
    match event.type:
        case pods_pb2.UNSPECIFIED:
            raise PodListMalformed("an event has no type")
        case pods_pb2.DELETED:
            store.remove(decode_uid(event.pod))
        case pods_pb2.ADDED | pods_pb2.MODIFIED:
            try:
                pod = decode_pod(event.pod, flaws)
            except PodListMalformed as error:  # it must not take the others' answers away
                flaws.left_out([str(error)], 1)
                return
            store.put(pod)
