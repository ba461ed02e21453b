"""Compares two snapshots, without values that change all the time. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message
from netutil.agent.errors import AgentError, Reason
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages.encode import PARTS, Parts
from netutil.agent.messages.status import part_error
from netutil.v1alpha import netutil_pb2 as api

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Digest:
    """What a part is like: `encoded` is of its bytes, `lasting` of its fields but the counters.

    None is the `encoded` of an error. `is_short` says that the agent lacked something for it.
    """

    encoded: bytes | None
    lasting: bytes
    is_short: bool


Digests = Mapping[str, Digest]
"""Of each part of a snapshot that is there, or failed."""

_DIGEST_BYTES = 16
_MAX_PARSED_ENVIRONMENT_BYTES = 128 * 1024
"""To parse a larger one would hold the interpreter's lock for milliseconds. All of it lasts; a
process that puts the variables of a larger one in another order is taken to have changed it."""
_KINDS: dict[str, type[Message]] = {name: type(getattr(api.AllResponse(), name)) for name in PARTS}
_NESTED_ERRORS = (
    "resources_error",
    "network_error",
    "allocated_error",
    "start_error",
    "link_error",
    "device_info_error",
    "pci_error",
    "spec_error",
    "claims_error",
)
_ERRORS_OF_SHORTAGE = {
    "interfaces": ("allocated_error", "start_error", "link_error", "claims_error"),
    "resources": ("pci_error", "claims_error"),
}
"""Errors in a part that pass without a notification, after which the part is looked at again."""
_PASSING = (Reason.AGENT_OUT_OF_RESOURCES, Reason.DEVICE_METADATA_CHANGING)


def digests(parts: Parts, before: Digests) -> Digests:
    """Return the digest of each part, without what message WatchResponse lists as no change.

    `before` are those of an earlier snapshot: a part of the same bytes has the same.
    """
    return {name: _of_part(name, part, before.get(name)) for name, part in parts.items()}


def changed(before: Digests, now: Digests) -> tuple[str, ...]:
    """Return the parts that differ, in the order of the API."""
    return tuple(part for part in PARTS if _lasts(before.get(part)) != _lasts(now.get(part)))


def are_short(found: Iterable[Digest]) -> bool:
    """Return whether the agent lacked something for one of the parts."""
    return any(one.is_short for one in found)


def _lasts(digest: Digest | None) -> bytes | None:
    return digest.lasting if digest is not None else None


def _of_part(
    name: str, part: Message | EncodedMessage | AgentError, before: Digest | None
) -> Digest:
    if isinstance(part, AgentError):
        error = part_error(name, part)
        return Digest(None, _digest(_bytes(_lasting_error(error))), _is_short(error))
    body = part.body if isinstance(part, EncodedMessage) else part.SerializeToString()
    encoded = _digest(body)
    if before is not None and before.encoded == encoded:
        return before
    if name == ENVIRONMENT and len(body) > _MAX_PARSED_ENVIRONMENT_BYTES:
        return Digest(encoded, encoded, is_short=False)
    message = _KINDS[name].FromString(body)
    errors = [getattr(message, field) for field in _ERRORS_OF_SHORTAGE.get(name, ())]
    if isinstance(message, api.ResourceResponse):
        errors += (one.error for one in message.claims)
    is_short = any(map(_is_short, errors))
    _drop_what_does_not_last(message)
    return Digest(encoded, _digest(_bytes(message)), is_short)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _is_short(error: api.PartError) -> bool:
    return error.reason in _PASSING


def _drop_what_does_not_last(part: Message) -> None:
    fields = part.DESCRIPTOR.fields_by_name
    if "observed_at" in fields:
        part.ClearField("observed_at")
    for name in _NESTED_ERRORS:
        if name in fields and part.HasField(name):
            getattr(part, name).CopyFrom(_lasting_error(getattr(part, name)))
    if isinstance(part, api.InterfacesResponse):
        _drop_counters(part)
    elif isinstance(part, api.HugepagesResponse):
        _drop_usage(part)
    elif isinstance(part, api.ResourceResponse):
        _drop_texts(part)


def _drop_counters(interfaces: api.InterfacesResponse) -> None:
    for interface in interfaces.interfaces:
        if interface.HasField("link"):
            interface.link.ClearField("counters")


def _drop_texts(resources: api.ResourceResponse) -> None:
    for claim in resources.claims:
        if claim.HasField("error"):
            claim.error.CopyFrom(_lasting_error(claim.error))


def _drop_usage(hugepages: api.HugepagesResponse) -> None:
    for usage in hugepages.usage:
        usage.ClearField("usage_bytes")
        usage.ClearField("failures")
    for pool in hugepages.pools:
        pool.CopyFrom(api.HugepagePool(page_size_bytes=pool.page_size_bytes))


def _lasting_error(error: api.PartError) -> api.PartError:
    return api.PartError(part=error.part, code=error.code, reason=error.reason)
