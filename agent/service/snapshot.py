"""Whether two snapshots differ in more than what changes all the time. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from google.protobuf.message import Message
from netutil.v1alpha import netutil_pb2 as api

ENVIRONMENT = "env"
PARTS = ("pod", "cpu", ENVIRONMENT, "network", "interfaces", "hugepages", "resources")
Digests = Mapping[str, bytes]
"""Of each part of a snapshot that is there, or failed: what it is like, in 16 bytes."""

_DIGEST_BYTES = 16
_NESTED_ERRORS = (
    "resources_error",
    "network_error",
    "allocated_error",
    "start_error",
    "link_error",
    "device_info_error",
    "pci_error",
    "spec_error",
)


def digests(snapshot: api.AllResponse) -> Digests:
    """Return the digest of each part, without what message WatchResponse lists as no change."""
    whole: Message = snapshot
    found = {
        part: _digest(_lasting(getattr(whole, part))) for part in PARTS if whole.HasField(part)
    }
    for error in snapshot.errors:
        found[error.part] = _digest(_lasting_error(error))
    return found


def changed(before: Digests, now: Digests) -> tuple[str, ...]:
    """Return the parts that differ, in the order of the API."""
    return tuple(part for part in PARTS if before.get(part) != now.get(part))


def _digest(message: Message) -> bytes:
    text = message.SerializeToString(deterministic=True)
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()


def _lasting(part: Message) -> Message:
    """Return a copy without what changes all the time."""
    copy = type(part)()
    copy.CopyFrom(part)
    fields = copy.DESCRIPTOR.fields_by_name
    if "observed_at" in fields:
        copy.ClearField("observed_at")
    for name in _NESTED_ERRORS:
        if name in fields and copy.HasField(name):
            getattr(copy, name).CopyFrom(_lasting_error(getattr(copy, name)))
    if isinstance(copy, api.InterfacesResponse):
        _drop_counters(copy)
    elif isinstance(copy, api.HugepagesResponse):
        _drop_usage(copy)
    return copy


def _drop_counters(interfaces: api.InterfacesResponse) -> None:
    for interface in interfaces.interfaces:
        if interface.HasField("link"):
            interface.link.ClearField("counters")


def _drop_usage(hugepages: api.HugepagesResponse) -> None:
    for usage in hugepages.usage:
        usage.ClearField("usage_bytes")
        usage.ClearField("failures")
    for pool in hugepages.pools:
        pool.CopyFrom(api.HugepagePool(page_size_bytes=pool.page_size_bytes))


def _lasting_error(error: api.PartError) -> api.PartError:
    return api.PartError(part=error.part, code=error.code, reason=error.reason)
