"""What can be asked: the request, the method, and how its answer is read. Pure.

Both clients and the command ask the same questions; only the waiting differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from netutil.client import conversion
from netutil.client.errors import InvalidRequest, NotFound
from netutil.client.results import CPU, Environment, NetworkStatus, NodePods, Pod
from netutil.v1alpha import netutil_pb2, node_pb2

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Question(Generic[Answer]):
    """One unary call: `method` is its full name, `read` turns the response into the answer."""

    method: str
    request: Message
    response_type: type[Message]
    read: Callable[[Any], Answer]


def cpu(pid: int | None = None) -> Question[CPU]:
    """GetCPUInfo."""
    return Question(
        "/v1alpha.NetUtil/GetCPUInfo",
        netutil_pb2.CPURequest(pid=_pid(pid)),
        netutil_pb2.CPUResponse,
        conversion.cpu,
    )


def environment(pid: int | None = None) -> Question[Environment]:
    """GetEnv for all variables."""
    return Question(
        "/v1alpha.NetUtil/GetEnv",
        netutil_pb2.EnvRequest(pid=_pid(pid)),
        netutil_pb2.EnvResponse,
        conversion.environment,
    )


def variable(key: str, pid: int | None = None) -> Question[Environment]:
    """GetEnv for one variable: an environment with nothing else in it; NotFound if not set."""

    def read(response: netutil_pb2.EnvResponse) -> Environment:
        if key not in response.envs:
            raise NotFound(f"variable {key} is not set", "NOT_FOUND", reason="VARIABLE_NOT_SET")
        return Environment(
            envs={key: response.envs[key]},
            replaced_entries=response.replaced_entries,
            skipped_entries=response.skipped_entries,
        )

    return Question(
        "/v1alpha.NetUtil/GetEnv",
        netutil_pb2.EnvRequest(pid=_pid(pid), key=_name(key, "the name of a variable")),
        netutil_pb2.EnvResponse,
        read,
    )


def network_status(interface: str | None = None, pid: int | None = None) -> Question[NetworkStatus]:
    """GetNetworkStatus; None asks for all networks."""
    name = "" if interface is None else _name(interface, "the name of an interface")
    return Question(
        "/v1alpha.NetUtil/GetNetworkStatus",
        netutil_pb2.NetworkStatusRequest(pid=_pid(pid), int=name),
        netutil_pb2.NetworkStatusResponse,
        conversion.network_status,
    )


def pod(pid: int | None = None) -> Question[Pod]:
    """GetPod."""
    return Question(
        "/v1alpha.NetUtil/GetPod",
        netutil_pb2.PodRequest(pid=_pid(pid)),
        netutil_pb2.PodResponse,
        conversion.pod,
    )


def node_pods() -> Question[NodePods]:
    """ListPods of the operator socket."""
    return Question(
        "/v1alpha.Node/ListPods",
        node_pb2.ListPodsRequest(),
        node_pb2.ListPodsResponse,
        conversion.node_pods,
    )


def _pid(pid: int | None) -> str:
    """The pid of a request; the agent itself says what is wrong with one below 1."""
    return "" if pid is None else str(pid)


def _name(name: str, what: str) -> str:
    """A name that can stand in a request. Empty it would mean "all" there."""
    if not name:
        raise InvalidRequest(f"{what} is empty", "INVALID_ARGUMENT", reason="NAME_EMPTY")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{what} is not UTF-8 text", "INVALID_ARGUMENT", reason="NAME_NOT_TEXT"
        ) from error
    return name
