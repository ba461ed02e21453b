"""grpcio's blocking stubs: `python -m tests.interop.grpcio_sync TARGET CASE [AUTHORITY]`."""

from __future__ import annotations

import sys
import threading
import time
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

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = netutil_pb2_grpc.NetUtilStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    def _pod(self, metadata: tuple[tuple[str, str], ...] = ()) -> int:
        """The code of a call."""
        return cases.code_of(self._stub.GetPod.future(api.PodRequest(), metadata=metadata))

    def unary(self) -> Result:
        return {"code": 0, "name": self._stub.GetPod(api.PodRequest()).name}

    def error(self) -> Result:
        try:
            self._stub.GetEnv(api.EnvRequest(key="NOT_SET"))
        except grpc.RpcError as error:
            return cases.described(error)
        return {"code": 0}

    def large(self) -> Result:
        found = self._stub.GetEnv(api.EnvRequest()).envs
        return {"code": 0, "bytes": sum(len(key) + len(value) for key, value in found.items())}

    def uploads(self) -> Result:
        requests = [api.EnvRequest(key="k" * size) for size in cases.UPLOADS]
        calls = [self._stub.GetEnv.future(request) for request in requests]
        return {"codes": Counter(cases.code_of(call) for call in calls), "then": self._pod()}

    def watch(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        name = next(call).snapshot.pod.name
        call.cancel()
        return {"name": name, "code": cases.code_of(call), "then": self._pod()}

    def keepalive(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        next(call)
        time.sleep(cases.KEEPALIVE_SECONDS)
        call.cancel()
        return {"code": cases.code_of(call), "then": self._pod()}

    def ended(self) -> Result:
        call = self._stub.Watch(api.WatchRequest())
        next(call)
        print("watching", flush=True)
        return _end_of(call)

    def many(self) -> Result:
        calls = [self._stub.GetPod.future(api.PodRequest()) for _ in range(cases.MANY)]
        return {"codes": Counter(cases.code_of(call) for call in calls)}

    def gzip(self) -> Result:
        _, call = self._stub.GetPod.with_call(api.PodRequest(), compression=grpc.Compression.Gzip)
        return {"code": 0, "encoding": dict(call.trailing_metadata())["request-encoding"]}

    def deadline(self) -> Result:
        return _end_of(self._stub.Watch(api.WatchRequest(), timeout=cases.DEADLINE_SECONDS))

    def metadata(self) -> Result:
        _, call = self._stub.GetPod.with_call(api.PodRequest(), metadata=cases.ECHO)
        return {
            "code": 0,
            "initial": cases.echoed(call.initial_metadata(), "initial-"),
            "trailing": cases.echoed(call.trailing_metadata()),
        }

    def large_metadata(self) -> Result:
        return {"code": self._pod(cases.LARGE_METADATA), "then": self._pod()}

    def health(self) -> Result:
        codes, statuses = [], []
        for service in cases.SERVICES:
            try:
                asked = health_pb2.HealthCheckRequest(service=service)
                statuses.append(self._health.Check(asked).status)
                codes.append(0)
            except grpc.RpcError as error:
                codes.append(cases.code_of(error))
        return {"codes": codes, "statuses": statuses}

    def load(self, *, wait: bool = False) -> Result:
        tally, ended = cases.Tally(), threading.Event()

        def call(method: Any, request: Any) -> None:
            try:
                method(request, wait_for_ready=wait, timeout=cases.TIMEOUT_SECONDS)
                tally.add(None)
            except grpc.RpcError as error:
                tally.add(error)

        def work(method: Any, request: Any) -> None:
            while not ended.is_set():
                call(method, request)
                time.sleep(cases.PAUSE_SECONDS)

        asks = cases.load(self._stub)
        for ask in asks:
            call(*ask)
        workers = [threading.Thread(target=work, args=ask) for ask in asks]
        for worker in workers:
            worker.start()
        print("calling", flush=True)
        sys.stdin.read()
        ended.set()
        for worker in workers:
            worker.join()
        return tally.result()

    def load_waiting(self) -> Result:
        return self.load(wait=True)


def _end_of(call: Any) -> Result:
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return {"code": cases.code_of(error)}
    return {"code": 0}


def main() -> None:
    asked = cases.arguments()
    with grpc.insecure_channel(asked.target, asked.options) as channel:
        client = Client(channel)
        cases.show(getattr(client, asked.case)())


if __name__ == "__main__":
    main()
