"""Follows the kubelet's WatchPods over its Unix socket. Used on one event loop.

Each stream begins with all pods, so nothing is carried over from one to the next. The kubelet drops
the events of a stream whose reader is slow (pkg/kubelet/apis/pods/server.go, `Broadcast`), and a
stream that says nothing says not that it is there: it is compared with ListPods now and then.
HTTP/2 pings would be taken for an attack if they came more often than every five minutes (gRPC's
default for servers in Go).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError
from netutil.agent.errors import Unavailable
from netutil.agent.kubelet.podsapi import errors
from netutil.agent.kubelet.podsapi.model import decode_pod, decode_uid
from netutil.agent.kubelet.socket import connection_problem
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import Pod, PodListMalformed
from netutil.agent.pods.sources.base import (
    MAX_BYTES,
    Comparison,
    ConfirmTiming,
    Difference,
    SourceKind,
    Take,
)
from netutil.agent.pods.store import PodStore
from netutil.podsapi.v1alpha1 import pods_pb2

_SERVICE = "/v1alpha1.Pods/"
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment has no business here
    ("grpc.max_receive_message_length", errors.MAX_EVENT_BYTES),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_retries", 0),  # the feed has its own back-off
    ("grpc.use_local_subchannel_pool", 1),  # a new channel connects again
)
_LIST_OPTIONS = (
    *(option for option in _OPTIONS if option[0] != "grpc.max_receive_message_length"),
    ("grpc.max_receive_message_length", MAX_BYTES),
)

Stream = grpc.aio.UnaryStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait for all pods and for a list, and how long a stream lasts.

    `confirm` says when a stream is compared with a list. The stream is of the kubelet's socket on
    this node: no other agent asks, and what the kubelet does not send at once it does not send.
    """

    initial_seconds: float = 30.0
    stream_seconds: float = 900.0
    list_seconds: float = 5.0
    confirm: ConfirmTiming = field(
        default_factory=lambda: ConfirmTiming(grace_seconds=1.0, unknown_seconds=1.0)
    )


class PodsApiSource:
    """Pods as the kubelet pushes them."""

    kind = SourceKind("The kubelet's Pods API")

    first_pause_seconds = 0.5
    longest_pause_seconds = 5.0

    def __init__(
        self, socket_path: str, timing: Timing = Timing(), flaws: Flaws | None = None
    ) -> None:
        """`flaws` counts what of the pods is not understood."""
        self._path = socket_path
        self._address = "unix:" + quote(socket_path)
        self._flaws = flaws or Flaws()
        self._timing = timing
        self._store = PodStore()
        self._digests: dict[str, int] = {}  # of each pod as the kubelet sent it, by its UID
        self._over = asyncio.Event()

    @property
    def confirm_timing(self) -> ConfirmTiming:
        """Return when the stream is compared with a list."""
        return self._timing.confirm

    async def compare(self) -> Comparison:
        """Compare with ListPods. Raises `Unavailable`."""
        asked = datetime.now(UTC)
        if (problem := connection_problem(self._path)) is not None:
            raise errors.not_connected(problem, self._path)
        async with grpc.aio.insecure_channel(self._address, options=_LIST_OPTIONS) as channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                _SERVICE + "ListPods"
            )
            request = pods_pb2.ListPodsRequest().SerializeToString()
            try:
                body = await ask(request, timeout=self._timing.list_seconds)
                listed = pods_pb2.ListPodsResponse.FromString(body).pods
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise errors.stuck(self._timing.list_seconds, self._path) from None
                raise self._why(error) from None
            except DecodeError as error:
                why = PodListMalformed(f"a list is none: {error}")
                raise errors.malformed(why, self._path) from None
        return Comparison(asked, frozenset(self._differences(listed)))

    def start_over(self) -> None:
        """End the stream: each begins with all pods."""
        self._over.set()

    def _differences(self, listed: Iterable[bytes]) -> Iterator[Difference]:
        """Yield what a list has otherwise than the stream has brought."""
        left = dict(self._digests)
        uids = {digest: uid for uid, digest in left.items()}
        stored = {pod.metadata.uid: pod for pod in self._store.pods}
        all_read = True
        for body in listed:
            uid = uids.get(hash(body))
            if uid is not None:
                left.pop(uid, None)
                continue
            try:
                pod = decode_pod(body, self._flaws)
            except PodListMalformed:  # the stream said so when it brought that
                all_read = False
                continue
            brought = left.pop(pod.metadata.uid, None)
            # The kubelet may write the same pod in two ways.
            if stored.get(pod.metadata.uid) != pod:
                yield pod.metadata.uid, _text(brought), _text(hash(body))
        # A pod that cannot be read now may be one that could be read before.
        for uid, brought in left.items() if all_read else ():
            yield uid, _text(brought), ""

    def describe(self) -> str:
        """Return the path."""
        return self._path

    async def follow(self, take: Take[Pod]) -> None:
        """Hand over the kubelet's pods until the stream ends. Raises `Unavailable`."""
        if (problem := connection_problem(self._path)) is not None:
            raise errors.not_connected(problem, self._path)
        self._over.clear()
        # A channel for each stream: one to an older kubelet's socket could outlive it.
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            # Without serializers: this module decodes the bytes, and reports what is malformed.
            watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
                _SERVICE + "WatchPods"
            )
            stream = watch(pods_pb2.WatchPodsRequest().SerializeToString())
            try:
                async with asyncio.timeout(self._timing.initial_seconds):
                    await self._begin(stream, take)
                await self._go_on(stream, take)
            except TimeoutError:
                raise errors.too_slow(self._timing.initial_seconds, self._path) from None
            except PodListMalformed as error:
                raise errors.malformed(error, self._path) from None
            except grpc.aio.AioRpcError as error:
                raise self._why(error) from None
            finally:
                stream.cancel()

    async def close(self) -> None:
        """Do nothing: `follow` releases its resources."""

    async def _begin(self, stream: Stream, take: Take[Pod]) -> None:
        """Read all pods, and hand them over together."""
        store, digests = PodStore(), dict[str, int]()
        while (event := _event(await stream.read())) is not None:
            if event.type == pods_pb2.INITIAL_SYNC_COMPLETE:
                self._store.replace(store.pods)
                self._digests = digests
                take(self._store.pods, datetime.now(UTC))
                return
            _apply(event, store, digests, self._flaws)
        raise errors.ended_early(self._path)

    async def _go_on(self, stream: Stream, take: Take[Pod]) -> None:
        """Hand over each change, until the stream ends or is to be started again."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._timing.stream_seconds
        over = asyncio.ensure_future(self._over.wait())
        try:
            while (remaining := ends_at - loop.time()) > 0:
                reading = asyncio.ensure_future(stream.read())
                try:
                    await asyncio.wait(
                        {reading, over}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not reading.done():
                        return
                    event = _event(reading.result())
                finally:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                if event is None:
                    return
                _apply(event, self._store, self._digests, self._flaws)
                take(self._store.pods, datetime.now(UTC))
        finally:
            over.cancel()

    def _why(self, error: grpc.aio.AioRpcError) -> Unavailable:
        # gRPC's text of a failed connect is for humans and changes: ask the kernel.
        lost = error.code() is grpc.StatusCode.UNAVAILABLE
        if lost and (problem := connection_problem(self._path)) is not None:
            return errors.not_connected(problem, self._path)
        return errors.call_failed(error, self._path)


def _event(read: object) -> pods_pb2.WatchPodsEvent | None:
    """Return an event, None at the end of the stream. Raises `PodListMalformed`."""
    if read is grpc.aio.EOF:
        return None
    try:
        return pods_pb2.WatchPodsEvent.FromString(cast(bytes, read))
    except DecodeError as error:
        raise PodListMalformed(f"an event is none: {error}") from None


def _text(digest: int | None) -> str:
    return "" if digest is None else f"{digest:x}"


def _apply(
    event: pods_pb2.WatchPodsEvent, store: PodStore, digests: dict[str, int], flaws: Flaws
) -> None:
    """Do to the store what an event says, and note of what bytes it was. Raises `PodListMalformed`.

    A type that is not known here changes nothing; one that is missing is that of another API.
    """
    match event.type:
        case pods_pb2.UNSPECIFIED:
            raise PodListMalformed("an event has no type")
        case pods_pb2.DELETED:
            uid = decode_uid(event.pod)
            store.remove(uid)
            digests.pop(uid, None)
        case pods_pb2.ADDED | pods_pb2.MODIFIED:
            try:
                pod = decode_pod(event.pod, flaws)
            except PodListMalformed as error:  # it must not take the others' answers away
                flaws.left_out([str(error)], 1)
                return
            store.put(pod)
            digests[pod.metadata.uid] = hash(event.pod)
