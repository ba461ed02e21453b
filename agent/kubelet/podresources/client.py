"""Calls the kubelet's PodResources socket. Used on one event loop; caches nothing.

The socket is a file in a directory of the host's. A kubelet that starts again makes a new
file, and a connection to the old one may outlive it: so the file is looked at before each
call, and a channel made for another one is not used any more.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import grpc
from netutil.agent.kubelet.podresources import errors
from netutil.agent.kubelet.podresources.errors import MethodNotServed
from netutil.agent.kubelet.podresources.model import (
    Asked,
    Key,
    PodEntry,
    PodResourcesMalformed,
    decode_list,
    decode_pod,
)
from netutil.agent.kubelet.socket import Signature, connection_problem, socket_signature
from netutil.podresources.v1 import podresources_pb2 as v1

_SERVICE = "/v1.PodResourcesLister/"
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment has no business here
    ("grpc.max_receive_message_length", errors.MAX_ANSWER_BYTES),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_retries", 0),  # the directory has its own pauses
    ("grpc.use_local_subchannel_pool", 1),  # a new channel connects again
)
_INLINE_DECODE_BYTES = 64 * 1024
"""The largest answer that is decoded on the event loop: about a millisecond."""


class PodResourcesClient:
    """The kubelet behind a socket. Its methods raise `Unavailable`, and what they name."""

    def __init__(self, socket_path: str, timeout_seconds: float, hidden_resource: str = "") -> None:
        """Leave the devices of `hidden_resource` out of every answer."""
        self.socket_path = socket_path
        self._hidden_resource = hidden_resource
        self._timeout_seconds = timeout_seconds
        self._channel: grpc.aio.Channel | None = None
        self._channel_to: Signature | None = None

    def signature(self) -> Signature | None:
        """Return what changes when a kubelet makes its socket again, None without a socket."""
        return socket_signature(self.socket_path)

    async def list_pods(self, asked: Asked) -> dict[Key, PodEntry]:
        """Return all pods of the node."""
        request = v1.ListPodResourcesRequest().SerializeToString()
        try:
            body = await self._call("List", request)
        except MethodNotServed as error:
            raise errors.not_served("List", str(error), self.socket_path) from None
        try:
            if len(body) <= _INLINE_DECODE_BYTES:
                return decode_list(body, asked, self._hidden_resource)
            return await asyncio.to_thread(decode_list, body, asked, self._hidden_resource)
        except PodResourcesMalformed as error:
            raise errors.malformed(error, self.socket_path) from None

    async def get_pod(self, key: Key, asked: Asked) -> PodEntry:
        """Return one pod. Raises `MethodNotServed`, and `PodNotFound`."""
        namespace, name = key
        request = v1.GetPodResourcesRequest(pod_name=name, pod_namespace=namespace)
        body = await self._call("Get", request.SerializeToString())
        try:
            return decode_pod(body, key, asked, self._hidden_resource)
        except PodResourcesMalformed as error:
            raise errors.malformed(error, self.socket_path) from None

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _call(self, method: str, request: bytes) -> bytes:
        channel = await self._connected()
        # Without serializers: this module decodes the bytes, and reports what is malformed.
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_SERVICE + method)
        try:
            body: bytes = await ask(request, timeout=self._timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise await self._why(error, method, channel) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Another call found a new socket and closed this channel.
            raise errors.unavailable(
                "The kubelet was restarted while the agent asked it.",
                self.socket_path,
                "Try again.",
            ) from None
        return body

    async def _connected(self) -> grpc.aio.Channel:
        signature = self.signature()
        if self._channel is not None and self._channel_to == signature:
            return self._channel
        old, self._channel = self._channel, None
        if (problem := connection_problem(self.socket_path)) is None:
            address = "unix:" + quote(self.socket_path)
            self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
            self._channel_to = signature
        made = self._channel
        if old is not None:
            await old.close()
        if problem is not None:
            raise errors.not_connected(problem, self.socket_path)
        assert made is not None  # noqa: S101 - without a problem it was made
        return made

    async def _why(
        self, error: grpc.aio.AioRpcError, method: str, channel: grpc.aio.Channel
    ) -> Exception:
        """Return the error of a failed call. Closes a broken connection."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            if channel is self._channel:
                self._channel = None
            await channel.close()
            # gRPC's text of a failed connect is for humans and changes: ask the kernel.
            if (problem := connection_problem(self.socket_path)) is not None:
                return errors.not_connected(problem, self.socket_path)
        return errors.call_failed(error, method, self.socket_path, self._timeout_seconds)
