"""An agent for tests on a real Unix socket: recorded answers, and errors on request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from queue import Empty, Queue
from typing import Any, NoReturn

import grpc
from netutil.client.rpc.endpoint import target
from netutil.v1alpha import netutil_pb2, netutil_pb2_grpc, node_pb2, node_pb2_grpc

from tests.support.answers import core as answers
from tests.support.answers import devices as device_answers
from tests.support.answers import node as node_answers


@dataclass
class Refusal:
    """A status as the agent sends it."""

    code: grpc.StatusCode
    sentence: str = "the agent's sentence"
    reason: str = ""
    read: str = ""
    advice: str = ""
    domain: str = "netutil"
    retry_after_seconds: float | None = None

    def serialized(self) -> bytes:
        details: Any = import_module("google.rpc.error_details_pb2")
        status = import_module("google.rpc.status_pb2").Status(
            code=self.code.value[0], message=self.sentence
        )
        if self.reason:
            metadata = {"read": self.read, "advice": self.advice}
            info = details.ErrorInfo(domain=self.domain, reason=self.reason, metadata=metadata)
            status.details.add().Pack(info)
        if self.retry_after_seconds is not None:
            retry = details.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after_seconds * 1e9))
            status.details.add().Pack(retry)
        serialized: bytes = status.SerializeToString()
        return serialized


@dataclass
class FakeAgent(netutil_pb2_grpc.NetUtilServicer, node_pb2_grpc.NodeServicer):
    """Answers what is recorded, after the refusals of `refusals`."""

    path: str
    refusals: deque[Refusal] = field(default_factory=deque)
    refused_methods: dict[str, Refusal] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    delay_seconds: float = 0.0
    cpu: netutil_pb2.CPUResponse = field(default_factory=answers.cpu)
    environment: netutil_pb2.EnvResponse = field(default_factory=answers.environment)
    network_status: netutil_pb2.NetworkStatusResponse = field(
        default_factory=answers.network_status
    )
    pod: netutil_pb2.PodResponse = field(default_factory=answers.pod)
    resources: netutil_pb2.ResourceResponse = field(default_factory=device_answers.resources)
    interfaces: netutil_pb2.InterfacesResponse = field(default_factory=device_answers.interfaces)
    hugepages: netutil_pb2.HugepagesResponse = field(default_factory=device_answers.hugepages)
    everything: netutil_pb2.AllResponse = field(default_factory=device_answers.everything)
    news: Queue[netutil_pb2.WatchResponse | Refusal] = field(default_factory=Queue)
    node_pods: node_pb2.ListPodsResponse = field(default_factory=answers.node_pods)
    first_node_pods: deque[node_pb2.ListPodsResponse] = field(default_factory=deque)
    described_pod: node_pb2.DescribePodResponse = field(default_factory=node_answers.described_pod)
    described_pods: list[node_pb2.DescribePodResponse | Refusal] = field(
        default_factory=lambda: [node_answers.described_pod()]
    )
    described_node: node_pb2.DescribeNodeResponse = field(
        default_factory=node_answers.described_node
    )
    processes: deque[list[node_pb2.ListProcessesResponse]] = field(
        default_factory=node_answers.processes
    )
    activities: deque[node_pb2.GetActivityResponse] = field(default_factory=node_answers.activities)
    traced: list[node_pb2.TraceResponse] = field(default_factory=node_answers.traced)
    explanation: node_pb2.ExplainResponse = field(default_factory=node_answers.explanation)
    diagnosis: node_pb2.DiagnoseResponse = field(default_factory=node_answers.diagnosis)

    def _note(self, request: Any, context: grpc.ServicerContext) -> None:
        self.asked.append(request)
        time.sleep(self.delay_seconds)
        refusal = self.refused_methods.get(type(request).__name__)
        if refusal is None and self.refusals:
            refusal = self.refusals.popleft()
        if refusal is not None:
            self._reject(refusal, context)

    def _reject(self, refusal: Refusal, context: grpc.ServicerContext) -> NoReturn:
        context.set_trailing_metadata((("grpc-status-details-bin", refusal.serialized()),))
        context.abort(refusal.code, refusal.sentence)
        raise AssertionError

    def GetCPUInfo(self, request: Any, context: Any) -> netutil_pb2.CPUResponse:  # noqa: N802
        self._note(request, context)
        if request.topology:
            return self.cpu
        without = netutil_pb2.CPUResponse()
        without.CopyFrom(self.cpu)
        without.ClearField("cpus")
        without.ClearField("exclusive_cpus")
        without.ClearField("exclusive_cpu_ids")
        without.ClearField("resources_error")
        without.ClearField("cpuset_partition")
        return without

    def GetEnv(self, request: Any, context: Any) -> netutil_pb2.EnvResponse:  # noqa: N802
        self._note(request, context)
        if not request.key:
            return self.environment
        if request.key not in self.environment.envs:
            sentence = f"variable {request.key} is not set"
            self._reject(Refusal(grpc.StatusCode.NOT_FOUND, sentence, "VARIABLE_NOT_SET"), context)
        return netutil_pb2.EnvResponse(envs={request.key: self.environment.envs[request.key]})

    def GetNetworkStatus(  # noqa: N802
        self, request: Any, context: Any
    ) -> netutil_pb2.NetworkStatusResponse:
        self._note(request, context)
        return self.network_status

    def GetResource(self, request: Any, context: Any) -> netutil_pb2.ResourceResponse:  # noqa: N802
        self._note(request, context)
        return self.resources

    def GetInterfaces(  # noqa: N802
        self, request: Any, context: Any
    ) -> netutil_pb2.InterfacesResponse:
        self._note(request, context)
        return self.interfaces

    def GetHugepages(  # noqa: N802
        self, request: Any, context: Any
    ) -> netutil_pb2.HugepagesResponse:
        self._note(request, context)
        return self.hugepages

    def GetAll(self, request: Any, context: Any) -> netutil_pb2.AllResponse:  # noqa: N802
        self._note(request, context)
        return self.everything

    def GetPod(self, request: Any, context: Any) -> netutil_pb2.PodResponse:  # noqa: N802
        self._note(request, context)
        return self.pod

    def Watch(self, request: Any, context: Any) -> Iterator[netutil_pb2.WatchResponse]:  # noqa: N802
        """Gives `everything`, then what is put into `news`; a refusal there ends the stream."""
        self._note(request, context)
        yield netutil_pb2.WatchResponse(snapshot=self.everything, version=1)
        while context.is_active():
            try:
                item = self.news.get(timeout=0.02)
            except Empty:
                continue
            if isinstance(item, Refusal):
                self._reject(item, context)
            else:
                yield item

    def ListPods(self, request: Any, context: Any) -> node_pb2.ListPodsResponse:  # noqa: N802
        """Gives those of `first_node_pods` one by one, then `node_pods`."""
        self._note(request, context)
        return self.first_node_pods.popleft() if self.first_node_pods else self.node_pods

    def DescribePod(self, request: Any, context: Any) -> node_pb2.DescribePodResponse:  # noqa: N802
        self._note(request, context)
        return self.described_pod

    def DescribePods(  # noqa: N802
        self, request: Any, context: Any
    ) -> Iterator[node_pb2.DescribePodResponse]:
        """Gives what is recorded; a refusal there ends the stream."""
        self._note(request, context)
        for item in self.described_pods:
            if isinstance(item, Refusal):
                self._reject(item, context)
            else:
                yield item

    def DescribeNode(  # noqa: N802
        self, request: Any, context: Any
    ) -> node_pb2.DescribeNodeResponse:
        self._note(request, context)
        return self.described_node

    def GetActivity(self, request: Any, context: Any) -> node_pb2.GetActivityResponse:  # noqa: N802
        """Gives one reading after the other, and the last of them for ever."""
        self._note(request, context)
        return self.activities.popleft() if len(self.activities) > 1 else self.activities[0]

    def Trace(self, request: Any, context: Any) -> Iterator[node_pb2.TraceResponse]:  # noqa: N802
        """Gives what is recorded, then nothing until the reader goes."""
        self._note(request, context)
        yield from self.traced
        while context.is_active():
            time.sleep(0.02)

    def ListProcesses(  # noqa: N802
        self, request: Any, context: Any
    ) -> Iterator[node_pb2.ListProcessesResponse]:
        """Gives one list after the other, and the last of them for ever."""
        self._note(request, context)
        lists = self.processes
        yield from lists.popleft() if len(lists) > 1 else lists[0]

    def Explain(self, request: Any, context: Any) -> node_pb2.ExplainResponse:  # noqa: N802
        self._note(request, context)
        return self.explanation

    def Diagnose(self, request: Any, context: Any) -> node_pb2.DiagnoseResponse:  # noqa: N802
        self._note(request, context)
        return self.diagnosis


@contextmanager
def serving(fake: FakeAgent) -> Iterator[None]:
    """The fake agent listens while the context lasts; its socket file is removed after it."""
    server = grpc.server(ThreadPoolExecutor(16))
    netutil_pb2_grpc.add_NetUtilServicer_to_server(fake, server)
    node_pb2_grpc.add_NodeServicer_to_server(fake, server)
    server.add_insecure_port(target(fake.path))
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()
