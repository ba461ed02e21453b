"""The kubelet's side of the device plugin API: registers plugins, watches and asks them.

What it does when it starts and when a plugin registers is that of the kubelet: it removes the
files of its directory first (removeContents in pkg/kubelet/cm/devicemanager/manager.go of 1.20),
and connects to the plugin within the registration (since 1.25) or after it (before).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2 as v1beta1
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2_grpc


class KubeletDouble(deviceplugin_pb2_grpc.RegistrationServicer):
    """`refusal` is what Register answers instead; without `connects` no plugin is called.

    With `hangs` it never answers, and with `answer_bytes` it answers so many. With
    `confuses_plugins` the end of one plugin disconnects the newest one, as runClient of 1.25 does.
    """

    def __init__(self, directory: Path, *, connects_first: bool = True) -> None:
        self.directory = directory
        self.connects_first = connects_first
        self.connects = True
        self.hangs = False
        self.confuses_plugins = False
        self.answer_bytes = 0
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.requests: list[v1beta1.RegisterRequest] = []
        self.devices: asyncio.Queue[list[v1beta1.Device]] = asyncio.Queue()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Remove what the directory has, and serve."""
        for path in self.directory.iterdir():
            path.unlink()
        server = self._server = grpc.aio.server()
        deviceplugin_pb2_grpc.add_RegistrationServicer_to_server(self, server)
        server.add_insecure_port(f"unix:{self.directory}/kubelet.sock")
        await server.start()

    async def stop(self) -> None:
        """End all streams, and leave the directory as a kubelet does that stops."""
        for endpoint in list(self._channels):
            await self.disconnect(endpoint)
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def disconnect(self, endpoint: str) -> None:
        """End the stream of one plugin."""
        if (stream := self._streams.pop(endpoint, None)) is not None:
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
        await self._channels.pop(endpoint).close()

    @property
    def endpoints(self) -> list[str]:
        """The names of the sockets of the plugins that are watched."""
        return list(self._streams)

    def stub(self, endpoint: str = "") -> deviceplugin_pb2_grpc.DevicePluginAsyncStub:
        """The service of a plugin, by default of the only one."""
        if not endpoint:
            (endpoint,) = self._channels
        return deviceplugin_pb2_grpc.DevicePluginStub(self._channels[endpoint])

    async def registered(self, seconds: float = 20.0) -> list[v1beta1.Device]:
        """Wait for the devices of a plugin that has registered."""
        async with asyncio.timeout(seconds):
            return await self.devices.get()

    async def Register(  # noqa: N802 - the name in the API
        self, request: v1beta1.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> v1beta1.Empty:
        """Take a plugin, and call it."""
        self.requests.append(request)
        if self.refusal is not None:
            await context.abort(*self.refusal)
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer_bytes:
            # A field that the message does not have: number 15, bytes.
            size = self.answer_bytes - 4
            return v1beta1.Empty.FromString(
                b"\x7a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + bytes(size)
            )
        if self.connects:
            endpoint = request.endpoint
            address = f"unix:{self.directory / endpoint}"
            self._channels[endpoint] = grpc.aio.insecure_channel(address)
            if self.connects_first:
                await self.stub(endpoint).GetDevicePluginOptions(v1beta1.Empty())
            self._streams[endpoint] = asyncio.create_task(self._watch(endpoint))
        return v1beta1.Empty()

    async def _watch(self, endpoint: str) -> None:
        try:
            async for answer in self.stub(endpoint).ListAndWatch(v1beta1.Empty()):
                self.devices.put_nowait(list(answer.devices))
        except grpc.aio.AioRpcError:
            self._streams.pop(endpoint, None)
            if self.confuses_plugins and self._streams:
                await self.disconnect(self.endpoints[-1])
