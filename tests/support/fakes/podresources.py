"""The kubelet's PodResources v1 on a real Unix socket, with switches for what may go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from netutil.podresources.v1 import podresources_pb2 as v1


def pod(
    name: str = "web", namespace: str = "shop", device: str = "0000:3b:02.1"
) -> v1.PodResources:
    """Return a pod with one device, two exclusive CPUs, a memory block and a claim."""
    near = v1.TopologyInfo(nodes=[v1.NUMANode(ID=1)])
    return v1.PodResources(
        name=name,
        namespace=namespace,
        containers=[
            v1.ContainerResources(
                name="app",
                devices=[
                    v1.ContainerDevices(
                        resource_name="example.com/nic", device_ids=[device], topology=near
                    )
                ],
                cpu_ids=[3, 2],
                memory=[v1.ContainerMemory(memory_type="hugepages-1Gi", size=2**30, topology=near)],
                dynamic_resources=[
                    v1.DynamicResource(
                        claim_name="gpu",
                        claim_namespace=namespace,
                        claim_resources=[
                            v1.ClaimResource(
                                cdi_devices=[v1.CDIDevice(name="example.com/gpu=0")],
                                driver_name="gpu.example.com",
                                pool_name="node",
                                device_name="gpu-0",
                            )
                        ],
                    )
                ],
            )
        ],
    )


class KubeletDouble:
    """`failure` is what List answers instead, `hold` keeps it waiting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pods = [pod()]
        self.with_get = True
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.hold = asyncio.Event()
        self.hold.set()
        self.lists = self.gets = 0

    async def list(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        del request
        self.lists += 1
        await self.hold.wait()
        if self.failure is not None:
            await context.abort(*self.failure)
        return v1.ListPodResourcesResponse(pod_resources=self.pods).SerializeToString()

    async def get(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        self.gets += 1
        if not self.with_get:
            await context.abort(grpc.StatusCode.UNKNOWN, "PodResources API Get method disabled")
        asked = v1.GetPodResourcesRequest.FromString(request)
        for one in self.pods:
            if (one.name, one.namespace) == (asked.pod_name, asked.pod_namespace):
                return v1.GetPodResourcesResponse(pod_resources=one).SerializeToString()
        await context.abort(
            grpc.StatusCode.UNKNOWN,
            f"pod {asked.pod_name} in namespace {asked.pod_namespace} not found",
        )
        raise AssertionError

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        handlers: Any = {
            "List": grpc.unary_unary_rpc_method_handler(self.list),
            "Get": grpc.unary_unary_rpc_method_handler(self.get),
        }
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1.PodResourcesLister", handlers),)
        )
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield
        finally:
            self.hold.set()
            await server.stop(0)
