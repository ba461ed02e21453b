"""Encoded answers: cached with their values, and joined without encoding them again.

A field of a message type is a tag, a length and the bytes of that message, and a message is its
fields one after the other, in any order (protobuf.dev, "Encoding"). So an answer that consists of
others is their bytes behind tags and lengths. For the same reason the bytes of two messages of one
type, one after the other, are the bytes of both merged: what is no message is encoded as a message
that has only it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from netutil.agent.collect.results import Cpus, GivenDevices, Hugepages
from netutil.agent.errors import AgentError
from netutil.agent.facts.network import Networks
from netutil.agent.facts.topology import Cpu
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.kubelet.podresources.model import ContainerResources
from netutil.agent.messages import convert, convert_devices
from netutil.agent.messages.status import part_error
from netutil.agent.parsers.environment import Environment
from netutil.agent.pods.index import Match
from netutil.agent.yield_cpu import yield_cpu
from netutil.v1alpha import netutil_pb2 as api

Answer = Message | EncodedMessage
Send = Callable[[Answer], Awaitable[None]]
"""Sends one message of a stream; returns when gRPC has taken the message."""
PARTS = ("pod", "cpu", "environment", "network_status", "interfaces", "hugepages", "resources")
"""The parts of AllResponse in the order of the API."""
Parts = Mapping[str, Message | EncodedMessage | AgentError]
"""The parts of AllResponse by name, each an answer or why there is none."""
_LENGTH_DELIMITED = 2
_WIRE_TYPE_BITS = 3
_SEVEN_BITS, _FOURTEEN_BITS = 0x7F, 0x3FFF
_PORTION_CHARACTERS = 128 * 1024
_CHARACTERS_PER_VARIABLE = 64
"""A short variable takes as long to encode as so many characters."""
_POD, _NETWORK, _ENCODED, _RESOURCES, _TOPOLOGY = (
    "pod",
    "network",
    "encoded",
    "resources",
    "topology",
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Made:
    """An answer, and what it was made of besides that which it is kept with."""

    of: object
    answer: EncodedMessage


def encode(message: Message) -> EncodedMessage:
    """Return a message encoded."""
    return EncodedMessage(message.SerializeToString())


def join(kind: type[Message], parts: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the bytes of a message of that kind with these fields, each an encoded message.

    A repeated field may be there more than once, and an empty part is a field that is set. Raises
    `KeyError` for a name that is no field of a message type.
    """
    tags = _tags(kind.DESCRIPTOR)
    out: list[bytes] = []
    for name, body in parts:
        out += (tags[name], _varint(len(body)), body)
    return b"".join(out)


@lru_cache(maxsize=8)
def _tags(kind: Descriptor) -> dict[str, bytes]:
    """Return the tag of each field that holds messages, map entries apart."""
    return {
        name: _varint(field.number << _WIRE_TYPE_BITS | _LENGTH_DELIMITED)
        for name, field in kind.fields_by_name.items()
        if field.message_type is not None and not field.message_type.GetOptions().map_entry
    }


def _varint(value: int) -> bytes:
    if value <= _SEVEN_BITS:
        return bytes((value,))
    if value <= _FOURTEEN_BITS:  # most parts of an answer are as long as this
        return bytes((value & _SEVEN_BITS | 0x80, value >> 7))
    out = bytearray()
    while value > _SEVEN_BITS:
        out.append(value & _SEVEN_BITS | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def everything(parts: Parts) -> EncodedMessage:
    """Return the answer to GetAll. A part that is an error is an entry of `errors`."""
    errors: list[tuple[str, bytes]] = []
    found: list[tuple[str, bytes]] = []
    for name in PARTS:
        part = parts.get(name)
        if part is None:
            continue
        if isinstance(part, AgentError):
            errors.append(("errors", part_error(name, part).SerializeToString()))
        elif isinstance(part, EncodedMessage):
            found.append((name, part.body))
        else:
            found.append((name, part.SerializeToString()))
    return EncodedMessage(join(api.AllResponse, found + errors))


def cpus(found: Cpus) -> EncodedMessage:
    """Return the answer to GetCPUInfo without each CPU, the same for the same `found`."""
    return _once(found.answers, convert_devices.cpus, found)


def cpus_with_topology(
    found: Cpus, each: tuple[Cpu, ...], exclusive: tuple[int, ...]
) -> EncodedMessage:
    """Return the answer to GetCPUInfo with each CPU: the same object while the values are the same.

    `exclusive` are the CPUs that the kubelet gave to the container alone.
    """
    of = each, exclusive
    known = found.answers.get(_TOPOLOGY)
    if isinstance(known, _Made) and known.of == of:
        return known.answer
    rest = api.CPUResponse()
    convert_devices.add_topology(rest, each, exclusive)
    answer = EncodedMessage(cpus(found).body + rest.SerializeToString())
    found.answers[_TOPOLOGY] = _Made(of, answer)
    return answer


def hugepages(found: Hugepages) -> EncodedMessage:
    """Return the answer to GetHugepages, the same for the same `found`."""
    return _once(found.answers, convert_devices.hugepages, found)


def _once(kept: dict[str, object], make: Callable[[T], Message], found: T) -> EncodedMessage:
    known = kept.get(_ENCODED)
    if not isinstance(known, EncodedMessage):
        known = kept[_ENCODED] = encode(make(found))
    return known


def environment(found: Environment, variables: Mapping[str, str]) -> EncodedMessage:
    """Return the answer to GetEnv, with the variables that were asked for.

    The answer is encoded in portions: a call of protobuf holds the interpreter's lock to its end,
    and so keeps the event loop waiting. A map's entries in the joined bytes are those of one map.
    """
    parts: list[bytes] = []
    portion: dict[str, str] = {}
    size = 0
    for name, value in variables.items():
        portion[name] = value
        size += len(name) + len(value) + _CHARACTERS_PER_VARIABLE
        if size > _PORTION_CHARACTERS:
            parts.append(api.EnvResponse(envs=portion).SerializeToString())
            portion, size = {}, 0
            yield_cpu()
    parts.append(convert.environment(found, portion).SerializeToString())
    return EncodedMessage(b"".join(parts))


def pod(match: Match, container_id: str) -> EncodedMessage:
    """Return the answer to GetPod, the same for the same match of a pod list."""
    if (match.container_id or "") != container_id:
        return encode(convert.pod(match, container_id))
    found = match.kept.get(_POD)
    if not isinstance(found, EncodedMessage):
        found = encode(convert.pod(match, container_id))
        match.kept.keep(_POD, found, found.ByteSize())
    return found


def known_network(match: Match) -> EncodedMessage | None:
    """Return the answer to GetNetworkStatus for all networks, None if none is kept."""
    found = match.kept.get(_NETWORK)
    return found if isinstance(found, EncodedMessage) else None


def network(networks: Networks, match: Match) -> EncodedMessage:
    """Return the answer to GetNetworkStatus with some or all networks of a match's pod."""
    return encode(convert.network(networks, match))


def keep_network(match: Match, answer: EncodedMessage) -> None:
    """Keep the answer for all networks: they follow from the pod alone."""
    match.kept.keep(_NETWORK, answer, answer.ByteSize())


def resources(found: ContainerResources, given: GivenDevices) -> EncodedMessage:
    """Return the answer to GetResource, the same while nothing of it changes."""
    made_with, answer = found.kept.get(_RESOURCES, (None, None))
    if isinstance(answer, EncodedMessage) and (made_with is given or made_with == given):
        return answer
    answer = encode(convert_devices.resources(found, given))
    found.kept[_RESOURCES] = given, answer
    return answer
