"""What can be asked of the operator socket. Pure."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from google.protobuf.message import Message
from netutil.client.conversion import result
from netutil.client.node_results import (
    Activity,
    DescribedNode,
    DescribedPod,
    Diagnosis,
    Explanation,
    Traced,
)
from netutil.client.questions import Question
from netutil.v1alpha import node_pb2

Answer = TypeVar("Answer")


def described_pod(namespace: str, name: str) -> Question[DescribedPod]:
    """DescribePod."""
    request = node_pb2.DescribePodRequest(namespace=namespace, name=name)
    return _question("DescribePod", request, node_pb2.DescribePodResponse, DescribedPod)


def described_pods() -> Question[DescribedPod]:
    """DescribePods: a stream, each message of which `read` takes."""
    request = node_pb2.DescribePodsRequest()
    return _question("DescribePods", request, node_pb2.DescribePodResponse, DescribedPod)


def described_node() -> Question[DescribedNode]:
    """DescribeNode."""
    request = node_pb2.DescribeNodeRequest()
    return _question("DescribeNode", request, node_pb2.DescribeNodeResponse, DescribedNode)


def activity() -> Question[Activity]:
    """GetActivity."""
    request = node_pb2.GetActivityRequest()
    return _question("GetActivity", request, node_pb2.GetActivityResponse, Activity)


def explanation(pid: int) -> Question[Explanation]:
    """Explain."""
    request = node_pb2.ExplainRequest(pid=str(pid))
    return _question("Explain", request, node_pb2.ExplainResponse, Explanation)


def diagnosis() -> Question[Diagnosis]:
    """Diagnose."""
    return _question("Diagnose", node_pb2.DiagnoseRequest(), node_pb2.DiagnoseResponse, Diagnosis)


TRACE = Question(
    "/v1alpha.Node/Trace",
    node_pb2.TraceRequest(),
    node_pb2.TraceResponse,
    partial(result, Traced),
)
"""Trace: a stream, each message of which `read` takes."""


def _question(
    method: str, request: Message, response_type: type[Message], kind: type[Answer]
) -> Question[Answer]:
    return Question(f"/v1alpha.Node/{method}", request, response_type, partial(result, kind))
