"""grpcio's asyncio stubs: `python -m tests.interop.grpcio_aio TARGET CASE [AUTHORITY]`."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

from tests.interop import cases

Result = dict[str, Any]


class Client:
    """One method a case."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = netutil_pb2_grpc.NetUtilStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)

    async def _pod(self, metadata: tuple[tuple[str, str], ...] = ()) -> int:
        """The code of a call."""
        return cases.number(await self._stub.GetPod(api.PodRequest(), metadata=metadata).code())

    async def unary(self) -> Result:
        return {"code": 0, "name": (await self._stub.GetPod(api.PodRequest())).name}

    async def error(self) -> Result:
        try:
            await self._stub.GetEnv(api.EnvRequest(key="NOT_SET"))
        except grpc.RpcError as error:
            return cases.described(error)
        return {"code": 0}

    async def large(self) -> Result:
        found = (await self._stub.GetEnv(api.EnvRequest())).envs
        return {"code": 0, "bytes": sum(len(key) + len(value) for key, value in found.items())}

    async def uploads(self) -> Result:
        requests = [api.EnvRequest(key="k" * size) for size in cases.UPLOADS]
        calls = [self._stub.GetEnv(request) for request in requests]
        codes = Counter([cases.number(await call.code()) for call in calls])
        return {"codes": codes, "then": await self._pod()}

    async def watch(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        name = (await call.read()).snapshot.pod.name
        call.cancel()
        code = cases.number(await call.code())
        return {"name": name, "code": code, "then": await self._pod()}

    async def keepalive(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        await call.read()
        await asyncio.sleep(cases.KEEPALIVE_SECONDS)
        call.cancel()
        return {"code": cases.number(await call.code()), "then": await self._pod()}

    async def ended(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        await call.read()
        print("watching", flush=True)
        return await _end_of(call)

    async def many(self) -> Result:
        calls = [self._stub.GetPod(api.PodRequest()) for _ in range(cases.MANY)]
        return {"codes": Counter([cases.number(await call.code()) for call in calls])}

    async def gzip(self) -> Result:
        call = self._stub.GetPod(api.PodRequest(), compression=grpc.Compression.Gzip)
        await call
        return {"code": 0, "encoding": dict(await call.trailing_metadata())["request-encoding"]}

    async def deadline(self) -> Result:
        return await _end_of(self._stub.Watch(api.WatchRequest(), timeout=cases.DEADLINE_SECONDS))

    async def metadata(self) -> Result:
        call = self._stub.GetPod(api.PodRequest(), metadata=cases.ECHO)
        await call
        return {
            "code": 0,
            "initial": cases.echoed(await call.initial_metadata(), "initial-"),
            "trailing": cases.echoed(await call.trailing_metadata()),
        }

    async def large_metadata(self) -> Result:
        return {"code": await self._pod(cases.LARGE_METADATA), "then": await self._pod()}

    async def health(self) -> Result:
        codes, statuses = [], []
        for service in cases.SERVICES:
            try:
                asked = health_pb2.HealthCheckRequest(service=service)
                statuses.append((await self._health.Check(asked)).status)
                codes.append(0)
            except grpc.RpcError as error:
                codes.append(cases.code_of(error))
        return {"codes": codes, "statuses": statuses}

    async def load(self, *, wait: bool = False) -> Result:
        tally, ended = cases.Tally(), asyncio.Event()

        async def call(method: Any, request: Any) -> None:
            try:
                await method(request, wait_for_ready=wait, timeout=cases.TIMEOUT_SECONDS)
                tally.add(None)
            except grpc.RpcError as error:
                tally.add(error)

        async def work(method: Any, request: Any) -> None:
            while not ended.is_set():
                await call(method, request)
                await asyncio.sleep(cases.PAUSE_SECONDS)

        asks = cases.load(self._stub)
        await asyncio.gather(*(call(*ask) for ask in asks))
        async with asyncio.TaskGroup() as workers:
            for ask in asks:
                workers.create_task(work(*ask))
            print("calling", flush=True)
            await asyncio.to_thread(sys.stdin.read)
            ended.set()
        return tally.result()

    async def load_waiting(self) -> Result:
        return await self.load(wait=True)


async def _end_of(call: Any) -> Result:
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.RpcError as error:
        return {"code": cases.code_of(error)}
    return {"code": 0}


async def main() -> None:
    asked = cases.arguments()
    async with grpc.aio.insecure_channel(asked.target, asked.options) as channel:
        client = Client(channel)
        cases.show(await getattr(client, asked.case)())


if __name__ == "__main__":
    asyncio.run(main())
