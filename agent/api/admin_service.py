"""Servicer of `v1alpha.Node`, for the operator socket only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, TypeVar, cast

from google.protobuf.message import Message
from netutil.agent.admin.describe import NodeDescriber, PodDescriber
from netutil.agent.admin.diagnostics import Diagnostics
from netutil.agent.admin.explain import Explainer
from netutil.agent.admin.pod_lister import PodLister
from netutil.agent.admin.processes import ProcessLister
from netutil.agent.admin.stats import Activity, TraceStreams
from netutil.agent.api.call_runner import CallRunner, Context, wait_seconds
from netutil.agent.connections.registry import Connection
from netutil.agent.messages.encode import Send
from netutil.v1alpha import node_pb2 as api
from netutil.v1alpha import node_pb2_grpc

T = TypeVar("T", bound=Message)


@dataclass(frozen=True, slots=True)
class PodReports:
    """What answers the methods of `v1alpha.Node` about pods and their processes."""

    lister: PodLister
    describer: PodDescriber
    processes: ProcessLister
    explainer: Explainer


@dataclass(frozen=True, slots=True)
class NodeReports:
    """What answers the methods of `v1alpha.Node`, one report for each."""

    pods: PodReports
    describer: NodeDescriber
    activity: Activity
    traces: TraceStreams
    diagnostics: Diagnostics


class Node(node_pb2_grpc.NodeServicer):
    """`v1alpha.Node`, for uid 0 of the host only."""

    def __init__(self, runner: CallRunner, reports: NodeReports) -> None:
        self._runner = runner
        self._reports = reports

    async def ListPods(
        self, request: api.ListPodsRequest, context: Context
    ) -> api.ListPodsResponse:
        """Return every pod that the pod source reports, by namespace and name."""
        del request
        return await self._answer("ListPods", context, self._reports.pods.lister.list)

    async def DescribePod(
        self, request: api.DescribePodRequest, context: Context
    ) -> api.DescribePodResponse:
        """Return everything that is known about one pod."""

        async def body() -> api.DescribePodResponse:
            return await self._reports.pods.describer.describe(
                request.namespace, request.name, wait_seconds(context)
            )

        return await self._answer("DescribePod", context, body)

    async def DescribePods(  # type: ignore[override]  # it writes to the context, as Trace does
        self, request: api.DescribePodsRequest, context: Context
    ) -> None:
        """Send everything that is known about each pod."""
        del request

        async def body(connection: Connection, send: Send) -> None:
            _ensure_operator(connection)
            await self._reports.pods.describer.describe_all(wait_seconds(context), send)

        await self._runner.stream("DescribePods", context, body)

    async def DescribeNode(
        self, request: api.DescribeNodeRequest, context: Context
    ) -> api.DescribeNodeResponse:
        """Return the node itself."""

        async def body() -> api.DescribeNodeResponse:
            return await self._reports.describer.describe(interfaces=request.interfaces)

        return await self._answer("DescribeNode", context, body)

    async def GetActivity(
        self, request: api.GetActivityRequest, context: Context
    ) -> api.GetActivityResponse:
        """Return the counters of every pod."""
        del request
        return await self._answer("GetActivity", context, self._reports.activity.read)

    async def Trace(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: api.TraceRequest, context: Context
    ) -> None:
        """Send each call as it is answered."""
        del request

        async def body(connection: Connection, send: Send) -> NoReturn:
            _ensure_operator(connection)
            await self._reports.traces.run(send)

        await self._runner.stream("Trace", context, body)

    async def Explain(self, request: api.ExplainRequest, context: Context) -> api.ExplainResponse:
        """Identify a process step by step."""

        async def body() -> api.ExplainResponse:
            return await self._reports.pods.explainer.explain(request.pid, wait_seconds(context))

        return await self._answer("Explain", context, body)

    async def Diagnose(
        self, request: api.DiagnoseRequest, context: Context
    ) -> api.DiagnoseResponse:
        """Look whether the agent has what it needs."""
        del request
        return await self._answer("Diagnose", context, self._reports.diagnostics.diagnose)

    async def ListProcesses(  # type: ignore[override]  # it writes to the context, as Trace does
        self, request: api.ListProcessesRequest, context: Context
    ) -> None:
        """Send the processes of pods."""

        async def body(connection: Connection, send: Send) -> None:
            _ensure_operator(connection)
            await self._reports.pods.processes.run(request, wait_seconds(context), send)

        await self._runner.stream("ListProcesses", context, body)

    async def _answer(self, method: str, context: Context, body: Callable[[], Awaitable[T]]) -> T:
        async def admitted(connection: Connection) -> T:
            _ensure_operator(connection)
            return await body()

        encoded = await self._runner.answer_scheduled(method, context, admitted)
        return cast("T", encoded)  # the server takes it for the message


def _ensure_operator(connection: Connection) -> None:
    """Raise the error of a caller that is not the host's root."""
    if connection.error is not None:
        raise connection.error.with_traceback(None)
