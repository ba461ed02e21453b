"""The requests of both services: method, message, and how a response is decoded. Pure.

Both clients and the command use them; only the waiting differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from netutil.client.errors import InvalidArgument, NotFound
from netutil.client.models.core import CPU, Environment, NetworkStatus, Pod, as_exception
from netutil.client.models.devices import All, Hugepages, Interfaces, Resources
from netutil.client.models.node import (
    Activity,
    DescribedNode,
    DescribedPod,
    Diagnosis,
    Explanation,
    NodePods,
    Traced,
)
from netutil.client.models.observation import Observation
from netutil.client.models.processes import ProcessesPart
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2, node_pb2

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Request(Generic[Answer]):
    """One call: `method` is its full name, `decode` turns a response into the answer."""

    method: str
    message: Message
    response_type: type[Message]
    decode: Callable[[Any], Answer]


def cpu(pid: int | None = None, *, topology: bool = False) -> Request[CPU]:
    """GetCPUInfo."""
    message = netutil_pb2.CPURequest(pid=_pid(pid), topology=topology)
    return _request("GetCPUInfo", message, netutil_pb2.CPUResponse, CPU)


def environment(pid: int | None = None) -> Request[Environment]:
    """GetEnv for all variables."""
    message = netutil_pb2.EnvRequest(pid=_pid(pid))
    return _request("GetEnv", message, netutil_pb2.EnvResponse, Environment)


def variable(key: str, pid: int | None = None) -> Request[Environment]:
    """GetEnv for one variable: an environment with nothing else in it; NotFound if not set."""

    def read(response: netutil_pb2.EnvResponse) -> Environment:
        if key not in response.envs:
            raise NotFound(f"variable {key} is not set", "NOT_FOUND", reason="VARIABLE_NOT_SET")
        return Environment(
            envs={key: response.envs[key]},
            replaced_entries=response.replaced_entries,
            skipped_entries=response.skipped_entries,
        )

    return Request(
        "/v1alpha.NetUtil/GetEnv",
        netutil_pb2.EnvRequest(pid=_pid(pid), key=_name(key, "the name of a variable")),
        netutil_pb2.EnvResponse,
        read,
    )


def network_status(interface: str | None = None, pid: int | None = None) -> Request[NetworkStatus]:
    """GetNetworkStatus; None and "" ask for all networks."""
    message = netutil_pb2.NetworkStatusRequest(pid=_pid(pid), int=_interface(interface))
    response = netutil_pb2.NetworkStatusResponse
    return _request("GetNetworkStatus", message, response, NetworkStatus)


def networks_of(interface: str) -> Request[NetworkStatus]:
    """GetInterfaces for one interface, of which the reported networks are kept: there may be none.

    Raises the error that hides what is reported.
    """
    every = interfaces(interface)

    def read(response: netutil_pb2.InterfacesResponse) -> NetworkStatus:
        answer = every.decode(response)
        if answer.network_error is not None:
            raise as_exception(answer.network_error)
        status = tuple(
            one.network
            for one in answer.interfaces
            if one.name == interface and one.network is not None
        )
        if not status and answer.device_info_error is not None:
            raise as_exception(answer.device_info_error)
        return NetworkStatus(
            status=status,
            source=answer.source,
            observed_at=answer.observed_at,
            host_network=answer.host_network,
            device_info_error=answer.device_info_error,
        )

    return Request(every.method, every.message, every.response_type, read)


def pod(pid: int | None = None) -> Request[Pod]:
    """GetPod."""
    return _request("GetPod", netutil_pb2.PodRequest(pid=_pid(pid)), netutil_pb2.PodResponse, Pod)


def interfaces(interface: str | None = None, pid: int | None = None) -> Request[Interfaces]:
    """GetInterfaces; None and "" ask for all interfaces."""
    message = netutil_pb2.InterfacesRequest(pid=_pid(pid), int=_interface(interface))
    return _request("GetInterfaces", message, netutil_pb2.InterfacesResponse, Interfaces)


def hugepages(pid: int | None = None) -> Request[Hugepages]:
    """GetHugepages."""
    message = netutil_pb2.HugepagesRequest(pid=_pid(pid))
    return _request("GetHugepages", message, netutil_pb2.HugepagesResponse, Hugepages)


def resources(pid: int | None = None, *, agent_device: bool = False) -> Request[Resources]:
    """GetResource."""
    message = netutil_pb2.ResourceRequest(pid=_pid(pid), agent_device=agent_device)
    return _request("GetResource", message, netutil_pb2.ResourceResponse, Resources)


def everything(pid: int | None = None) -> Request[All]:
    """GetAll."""
    return _request("GetAll", netutil_pb2.AllRequest(pid=_pid(pid)), netutil_pb2.AllResponse, All)


WATCH = Request(
    "/v1alpha.NetUtil/Watch",
    netutil_pb2.WatchRequest(),
    netutil_pb2.WatchResponse,
    partial(result, Observation),
)
"""Watch: the only method with a stream of responses, each of which `decode` takes."""


def node_pods() -> Request[NodePods]:
    """ListPods of the operator socket."""
    return Request(
        "/v1alpha.Node/ListPods",
        node_pb2.ListPodsRequest(),
        node_pb2.ListPodsResponse,
        partial(result, NodePods),
    )


def described_pod(namespace: str, name: str) -> Request[DescribedPod]:
    """DescribePod."""
    message = node_pb2.DescribePodRequest(namespace=namespace, name=name)
    return _node_request("DescribePod", message, node_pb2.DescribePodResponse, DescribedPod)


def described_pods() -> Request[DescribedPod]:
    """DescribePods: a stream, each message of which `decode` takes."""
    message = node_pb2.DescribePodsRequest()
    return _node_request("DescribePods", message, node_pb2.DescribePodResponse, DescribedPod)


def processes(
    namespace: str = "", name: str = "", *, threads: bool = False
) -> Request[ProcessesPart]:
    """ListProcesses, of every pod if none is named: a stream, each message `decode` takes."""
    message = node_pb2.ListProcessesRequest(namespace=namespace, name=name, threads=threads)
    return _node_request("ListProcesses", message, node_pb2.ListProcessesResponse, ProcessesPart)


def described_node(*, interfaces: bool = False) -> Request[DescribedNode]:
    """DescribeNode, with the network interfaces of the node if wanted."""
    message = node_pb2.DescribeNodeRequest(interfaces=interfaces)
    return _node_request("DescribeNode", message, node_pb2.DescribeNodeResponse, DescribedNode)


def activity() -> Request[Activity]:
    """GetActivity."""
    message = node_pb2.GetActivityRequest()
    return _node_request("GetActivity", message, node_pb2.GetActivityResponse, Activity)


def explanation(pid: int) -> Request[Explanation]:
    """Explain."""
    message = node_pb2.ExplainRequest(pid=str(pid))
    return _node_request("Explain", message, node_pb2.ExplainResponse, Explanation)


def diagnosis() -> Request[Diagnosis]:
    """Diagnose."""
    return _node_request(
        "Diagnose", node_pb2.DiagnoseRequest(), node_pb2.DiagnoseResponse, Diagnosis
    )


TRACE = Request(
    "/v1alpha.Node/Trace",
    node_pb2.TraceRequest(),
    node_pb2.TraceResponse,
    partial(result, Traced),
)
"""Trace: a stream, each message of which `decode` takes."""


def _request(
    method: str, message: Message, response_type: type[Message], kind: type[Answer]
) -> Request[Answer]:
    """A request of the pods' service."""
    return Request(f"/v1alpha.NetUtil/{method}", message, response_type, partial(result, kind))


def _node_request(
    method: str, message: Message, response_type: type[Message], kind: type[Answer]
) -> Request[Answer]:
    """A request of the operator socket's service."""
    return Request(f"/v1alpha.Node/{method}", message, response_type, partial(result, kind))


def _pid(pid: int | None) -> str:
    """The pid of a request; the agent itself says what is wrong with one below 1."""
    return "" if pid is None else str(pid)


def _interface(interface: str | None) -> str:
    """The interface of a request; None and "" ask for all."""
    return _name(interface, "the name of an interface") if interface else ""


def _name(name: str, what: str) -> str:
    """A name that a request can carry. An empty name would mean "all" there."""
    if not name:
        raise InvalidArgument(
            f"{what} is empty",
            "INVALID_ARGUMENT",
            reason="NAME_EMPTY",
            advice="leave the name out to ask for all",
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"{what} is not UTF-8 text", "INVALID_ARGUMENT", reason="NAME_NOT_TEXT"
        ) from error
    return name
