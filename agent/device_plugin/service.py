"""The service that the kubelet calls: devices, and the mount that goes with each of them.

A device represents one container that has the mount. A device has no state: every device gives the
same mount, so the identifiers in a request do not matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2 as v1beta1
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2_grpc

DEVICES = 1000
"""More than a node has containers (110 pods by default), each of which needs one."""
MAX_CONTAINERS = 64
"""Containers of one request. The kubelet asks for one at a time."""
CONTAINER_PATH = "/etc/netutil"
OPTIONS = v1beta1.DevicePluginOptions(
    pre_start_required=False, get_preferred_allocation_available=False
)


@dataclass(slots=True)
class AllocationCount:
    """Containers that got the mount since the start."""

    containers: int = 0


class DevicePluginService(deviceplugin_pb2_grpc.DevicePluginServicer):
    """Answers the kubelet. `watched` and `unwatched` report whether a ListAndWatch stream is open.

    Used on one event loop.
    """

    def __init__(self, host_path: str, allocations: AllocationCount) -> None:
        """Answer with a mount of `host_path`, a directory of the host."""
        mount = v1beta1.Mount(container_path=CONTAINER_PATH, host_path=host_path, read_only=True)
        self._answer = v1beta1.ContainerAllocateResponse(mounts=[mount])
        self._devices = v1beta1.ListAndWatchResponse(
            devices=[
                v1beta1.Device(ID=f"netutil-{number:04}", health="Healthy")
                for number in range(DEVICES)
            ]
        )
        self._allocations = allocations
        self._streams = 0
        self.watched, self.unwatched = asyncio.Event(), asyncio.Event()
        self.unwatched.set()

    async def GetDevicePluginOptions(  # noqa: N802 - the name in the API
        self, request: v1beta1.Empty, context: grpc.aio.ServicerContext[Any, Any]
    ) -> v1beta1.DevicePluginOptions:
        """Return that neither PreStartContainer nor GetPreferredAllocation is to be called."""
        del request, context
        return OPTIONS

    async def ListAndWatch(  # noqa: N802
        self, request: v1beta1.Empty, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[v1beta1.ListAndWatchResponse]:
        """Send all devices once, all healthy. The stream ends with the server or the kubelet."""
        del request, context
        self._streams += 1
        try:
            yield self._devices
            self.unwatched.clear()
            self.watched.set()
            await asyncio.Event().wait()
        finally:
            self._streams -= 1
            if not self._streams:
                self.watched.clear()
                self.unwatched.set()

    async def Allocate(  # noqa: N802
        self, request: v1beta1.AllocateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> v1beta1.AllocateResponse:
        """Return the mount for each container. INVALID_ARGUMENT for too many containers."""
        containers = len(request.container_requests)
        if containers > MAX_CONTAINERS:
            text = f"At most {MAX_CONTAINERS} containers at once, not {containers}."
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        self._allocations.containers += containers
        return v1beta1.AllocateResponse(container_responses=[self._answer] * containers)
