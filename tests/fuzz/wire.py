"""Input over the agent's socket: fields of requests, and answers as a client reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from netutil.agent.collect.caller import parse_pid
from netutil.agent.collect.environment_collector import variables
from netutil.agent.errors import AgentError, InvalidArgument, NotFound, PermissionDenied, Reason
from netutil.agent.facts.network import Networks, Source, ensure_interface_name, of_interface
from netutil.agent.messages.status import trailing_metadata
from netutil.agent.parsers.environment import parse_environment
from netutil.client.cli.render.node import pods, pods_wide
from netutil.client.cli.render.pod import tables_for
from netutil.client.cli.render.tables import Style, Table, render
from netutil.client.cpulist import format_cpulist, parse_cpulist
from netutil.client.documents import to_json, to_yaml
from netutil.client.dpdk.eal import command_line
from netutil.client.errors import NetUtilError
from netutil.client.models.devices import All
from netutil.client.models.node import NodePods
from netutil.client.rpc.convert import result
from netutil.client.rpc.status import Details, parse_details
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import node_pb2

from tests.fuzz.target import Target
from tests.support.answers import core as answers
from tests.support.answers import devices as device_answers
from tests.support.answers import dpdk as dpdk_facts

_NODE = b"\x00"
"""First byte of an input that is an answer of the operator's service."""


def _pid(data: bytes) -> int:
    return parse_pid(data.decode(errors="replace"))


def _pid_holds(data: bytes, found: int) -> None:
    assert 0 < found < 2**32
    assert set(data) <= set(b"0123456789")
    assert data.lstrip(b"0") == str(found).encode()


def _interface(data: bytes) -> str:
    name = data.decode(errors="surrogateescape") if _is_text(data) else "/"
    ensure_interface_name(name)
    try:
        of_interface(Networks((), Source.POD_STATUS), name)
    except NotFound:
        pass
    return name


def _is_text(data: bytes) -> bool:
    """Protobuf refuses a request whose string is not UTF-8 before the agent sees it."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _interface_holds(data: bytes, found: str) -> None:
    """dev_valid_name of the kernel's net/core/dev.c."""
    del found
    assert 0 <= len(data) <= 15
    assert data not in (b".", b"..")
    assert not set(data) & set(b"/: \t\n\v\f\r")


def _key(data: bytes) -> dict[str, str]:
    block, _, key = data.partition(b"\x01")
    wanted = key.decode(errors="replace")
    return variables(parse_environment(block), wanted)


def _key_holds(data: bytes, found: dict[str, str]) -> None:
    key = data.partition(b"\x01")[2].decode(errors="replace")
    assert not key or set(found) == {key}


def _details(data: bytes) -> Details:
    return parse_details(data)


def _details_hold(data: bytes, found: Details) -> None:
    del data
    if found.retry_after_seconds is not None:
        assert found.retry_after_seconds >= 0


def _answer(data: bytes) -> Any:
    if data[:1] == _NODE:
        return result(NodePods, node_pb2.ListPodsResponse.FromString(data[1:]))
    return result(All, api.AllResponse.FromString(data))


def _answer_holds(data: bytes, found: Any) -> None:
    del data
    tables = tables_for(found) if isinstance(found, All) else _node_tables(found)
    shown = render(tables, Style(width=None, bold=False))
    assert shown.replace("\n", "").isprintable()
    to_json(found).encode("ascii")
    to_yaml(found)
    if isinstance(found, All):
        try:
            line = command_line(found)
        except NetUtilError as error:
            assert str(error)
            return
        assert all(word.isprintable() for word in line.words)


def _node_tables(found: NodePods) -> tuple[Table, ...]:
    narrow = pods(found, "name", datetime.now(UTC), None)
    return narrow, pods_wide(found, "name")


def _client_cpus(data: bytes) -> frozenset[int]:
    return parse_cpulist(data.decode(errors="replace"))


def _client_cpus_hold(data: bytes, found: frozenset[int]) -> None:
    del data
    assert parse_cpulist(format_cpulist(found)) == found


def targets() -> tuple[Target, ...]:
    error = PermissionDenied(Reason.NOT_A_POD, "no", read="x", advice="y")
    ((_, details),) = trailing_metadata(error)
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.seconds = 3
    status = status_pb2.Status(code=14)
    status.details.add().Pack(retry)
    answer = device_answers.everything().SerializeToString()
    node = answers.node_pods().SerializeToString()
    dpdk = dpdk_facts.facts().SerializeToString()
    client = (DecodeError,)
    return (
        Target(
            "request-pid",
            _pid,
            (b"1", b"4711", b"4294967295", "\uff11\uff12".encode()),
            (InvalidArgument,),
            _pid_holds,
            (b"-1", b"0x", b"_", b" ", b"9" * 20),
        ),
        Target(
            "request-interface",
            _interface,
            (b"eth0", b"net1.100", b"a" * 15, b".."),
            (InvalidArgument,),
            _interface_holds,
            (b"/", b":", b"\xc2\x85", b"\xe2\x80\xa8"),
        ),
        Target(
            "request-key",
            _key,
            (b"A=1\0B=2\x01A", b"A=1\x01C", b"A\x01"),
            (AgentError,),
            _key_holds,
            (b"\x01", b"\0", b"="),
        ),
        Target("client-error", _details, (details, status.SerializeToString()), (), _details_hold),
        Target(
            "client-answer",
            _answer,
            (answer, _NODE + node, dpdk),
            client,
            _answer_holds,
            (b"0-3", b"\xff\xff\xff\xff\x0f"),
            most_times=64,
            most_more=65536,
        ),
        Target(
            "client-cpulist",
            _client_cpus,
            (b"0-3,8", b"7", b""),
            (ValueError,),
            _client_cpus_hold,
            (b",", b"-", b"9999"),
            most_more=16384,
        ),
    )
