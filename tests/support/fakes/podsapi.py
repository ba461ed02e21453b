"""The kubelet's Pods API on a real Unix socket, with switches for what may go wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from netutil.agent.kubelet.podsapi.source import PodsApiSource, Timing
from netutil.agent.pods.directory import PodDirectory
from netutil.podsapi.v1alpha1 import pod_pb2, pods_pb2, pods_pb2_grpc

TIMING = Timing(initial_seconds=20, stream_seconds=600)


def pod(
    number: int, name: str = "", annotations: dict[str, str] | None = None, *, uid: str = ""
) -> pod_pb2.Pod:
    """A running pod; its UID and container ID contain its number."""
    return pod_pb2.Pod(
        metadata=pod_pb2.ObjectMeta(
            name=name or f"pod-{number}",
            namespace="shop",
            uid=uid or f"{number:032x}",
            annotations=annotations,
        ),
        spec=pod_pb2.PodSpec(nodeName="node-1"),
        status=pod_pb2.PodStatus(
            phase="Running",
            containerStatuses=[
                pod_pb2.ContainerStatus(name="app", containerID=f"containerd://{number:064x}")
            ],
        ),
    )


def pod_of_json(document: dict[str, Any]) -> pod_pb2.Pod:
    """Return a pod of a PodList as the Pods API has it. The document is changed."""
    for statuses in document["status"].get("containerStatuses", []):
        statuses["state"] = {"waiting": {}}  # a moment is text in JSON, a number here
    return json_format.ParseDict(document, pod_pb2.Pod(), ignore_unknown_fields=True)


class KubeletDouble(pods_pb2_grpc.PodsServicer):
    """`refusal` ends calls at once, `stuck` keeps them waiting; `steps` are sent after the sync."""

    def __init__(self, path: Path, *pods: pod_pb2.Pod) -> None:
        self.path = path
        self.pods = {one.metadata.uid: one for one in pods}
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.before: list[pods_pb2.WatchPodsEvent] = []
        self.unreadable: list[bytes] = []  # in lists
        self.syncs = True
        self.stuck = False
        self.watches = self.lists = 0
        self._steps: set[asyncio.Queue[pods_pb2.WatchPodsEvent | tuple[grpc.StatusCode, str]]]
        self._steps = set()

    def send(self, kind: pods_pb2.EventType.ValueType, body: bytes) -> None:
        for steps in self._steps:
            steps.put_nowait(pods_pb2.WatchPodsEvent(type=kind, pod=body))

    def put(self, one: pod_pb2.Pod) -> None:
        new = one.metadata.uid not in self.pods
        self.pods[one.metadata.uid] = one
        kind = pods_pb2.ADDED if new else pods_pb2.MODIFIED
        self.send(kind, one.SerializeToString())

    def delete(self, one: pod_pb2.Pod) -> None:
        """As the kubelet sends it: with name, namespace and UID alone."""
        del self.pods[one.metadata.uid]
        known = pod_pb2.ObjectMeta(
            name=one.metadata.name, namespace=one.metadata.namespace, uid=one.metadata.uid
        )
        self.send(pods_pb2.DELETED, pod_pb2.Pod(metadata=known).SerializeToString())

    def end(self, code: grpc.StatusCode, said: str) -> None:
        for steps in self._steps:
            steps.put_nowait((code, said))

    async def WatchPods(  # noqa: N802 - as in the proto
        self, request: pods_pb2.WatchPodsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pods_pb2.WatchPodsEvent]:
        self.watches += 1
        if self.refusal is not None:
            await context.abort(*self.refusal)
        steps: asyncio.Queue[Any] = asyncio.Queue()
        self._steps.add(steps)
        try:
            for event in self.before:
                yield event
            for one in list(self.pods.values()):
                yield pods_pb2.WatchPodsEvent(type=pods_pb2.ADDED, pod=one.SerializeToString())
            if self.syncs:
                yield pods_pb2.WatchPodsEvent(type=pods_pb2.INITIAL_SYNC_COMPLETE)
            while True:
                step = await steps.get()
                if isinstance(step, tuple):
                    if step[0] is grpc.StatusCode.OK:
                        return
                    await context.abort(*step)
                yield step
        finally:
            self._steps.discard(steps)

    async def ListPods(  # noqa: N802 - as in the proto
        self, request: pods_pb2.ListPodsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pods_pb2.ListPodsResponse:
        self.lists += 1
        if self.stuck:
            await asyncio.Event().wait()
        return pods_pb2.ListPodsResponse(
            pods=[
                *(one.SerializeToString() for one in self.pods.values()),
                *self.unreadable,
            ]
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        pods_pb2_grpc.add_PodsServicer_to_server(self, server)
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(0)
            self.path.unlink(missing_ok=True)


@contextmanager
def serving_in_a_thread(kubelet: KubeletDouble) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve while the caller blocks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        enter = stack.enter_async_context(kubelet.serving())
        asyncio.run_coroutine_threadsafe(enter, loop).result(30)
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@asynccontextmanager
async def following(path: Path, **timing: Any) -> AsyncIterator[PodDirectory]:
    directory = PodDirectory(PodsApiSource(str(path), replace(TIMING, **timing)), 10)
    try:
        yield directory
    finally:
        await directory.close()
