"""What can be asked: the request, the method, and how its answer is read. Pure.

Both clients and the command ask the same questions; only the waiting differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from netutil.client.conversion import result
from netutil.client.devices import All, Hugepages, Interfaces, Resources
from netutil.client.errors import InvalidRequest, NotFound
from netutil.client.observations import Observation
from netutil.client.part_errors import error_of
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


def cpu(pid: int | None = None, *, topology: bool = False) -> Question[CPU]:
    """GetCPUInfo."""
    request = netutil_pb2.CPURequest(pid=_pid(pid), topology=topology)
    return _question("GetCPUInfo", request, netutil_pb2.CPUResponse, CPU)


def environment(pid: int | None = None) -> Question[Environment]:
    """GetEnv for all variables."""
    request = netutil_pb2.EnvRequest(pid=_pid(pid))
    return _question("GetEnv", request, netutil_pb2.EnvResponse, Environment)


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
    request = netutil_pb2.NetworkStatusRequest(pid=_pid(pid), int=_interface(interface))
    response = netutil_pb2.NetworkStatusResponse
    return _question("GetNetworkStatus", request, response, NetworkStatus)


def networks_of(interface: str) -> Question[NetworkStatus]:
    """GetInterfaces for one interface, of which the reported networks are kept: there may be none.

    Raises the error that hides what is reported.
    """
    asked = interfaces(interface)

    def read(response: netutil_pb2.InterfacesResponse) -> NetworkStatus:
        answer = asked.read(response)
        if answer.network_error is not None:
            raise error_of(answer.network_error)
        status = tuple(
            one.network
            for one in answer.interfaces
            if one.name == interface and one.network is not None
        )
        if not status and answer.device_info_error is not None:
            raise error_of(answer.device_info_error)
        return NetworkStatus(
            status=status,
            source=answer.source,
            observed_at=answer.observed_at,
            host_network=answer.host_network,
            device_info_error=answer.device_info_error,
        )

    return Question(asked.method, asked.request, asked.response_type, read)


def pod(pid: int | None = None) -> Question[Pod]:
    """GetPod."""
    return _question("GetPod", netutil_pb2.PodRequest(pid=_pid(pid)), netutil_pb2.PodResponse, Pod)


def interfaces(interface: str | None = None, pid: int | None = None) -> Question[Interfaces]:
    """GetInterfaces; None asks for all interfaces."""
    request = netutil_pb2.InterfacesRequest(pid=_pid(pid), int=_interface(interface))
    return _question("GetInterfaces", request, netutil_pb2.InterfacesResponse, Interfaces)


def hugepages(pid: int | None = None) -> Question[Hugepages]:
    """GetHugepages."""
    request = netutil_pb2.HugepagesRequest(pid=_pid(pid))
    return _question("GetHugepages", request, netutil_pb2.HugepagesResponse, Hugepages)


def resources(pid: int | None = None) -> Question[Resources]:
    """GetResource."""
    request = netutil_pb2.ResourceRequest(pid=_pid(pid))
    return _question("GetResource", request, netutil_pb2.ResourceResponse, Resources)


def everything(pid: int | None = None) -> Question[All]:
    """GetAll."""
    return _question("GetAll", netutil_pb2.AllRequest(pid=_pid(pid)), netutil_pb2.AllResponse, All)


WATCH = Question(
    "/v1alpha.NetUtil/Watch",
    netutil_pb2.WatchRequest(),
    netutil_pb2.WatchResponse,
    partial(result, Observation),
)
"""Watch: the only method with a stream of responses, each of which `read` takes."""


def node_pods() -> Question[NodePods]:
    """ListPods of the operator socket."""
    return Question(
        "/v1alpha.Node/ListPods",
        node_pb2.ListPodsRequest(),
        node_pb2.ListPodsResponse,
        partial(result, NodePods),
    )


def _question(
    method: str, request: Message, response_type: type[Message], kind: type[Answer]
) -> Question[Answer]:
    return Question(f"/v1alpha.NetUtil/{method}", request, response_type, partial(result, kind))


def _pid(pid: int | None) -> str:
    """The pid of a request; the agent itself says what is wrong with one below 1."""
    return "" if pid is None else str(pid)


def _interface(interface: str | None) -> str:
    return "" if interface is None else _name(interface, "the name of an interface")


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
