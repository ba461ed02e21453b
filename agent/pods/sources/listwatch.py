"""Decodes pages of lists and watch events of the API server. Pure.

Kubernetes API Concepts, "Efficient detection of changes", "Watch bookmarks" and
"Retrieving large results sets in chunks".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Generic, TypeVar

import msgspec
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import PodListMalformed

T = TypeVar("T")

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The largest event that is read: etcd takes objects of 1.5 MiB, and JSON is longer."""
_MAX_VERSION_DIGITS = 128


class Expired(Exception):
    """The API server does not know what happened since that resource version: list again."""


class WatchFailed(Exception):
    """The API server ended a watch with an error. The text is what it said."""


class EventType(StrEnum):
    """Events of a watch; ERROR is raised."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is listed and watched, and how it is decoded.

    Both functions raise `PodListMalformed`, and count in the flaws what they leave out. `most` is
    how many are held, which `most_of` names: "pods for one node".
    """

    plural: str
    decode_list: Callable[[bytes | bytearray, Flaws], tuple[T, ...]]
    decode: Callable[[msgspec.Raw, Flaws], T]
    uid_of: Callable[[T], str]
    most: int
    most_of: str


@dataclass(frozen=True, slots=True)
class Versions:
    """A part of a list, of which the objects' resource versions by UID are read alone."""

    by_uid: Mapping[str, str]
    version: str
    next_page: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `next_page` is "" at its end."""

    objects: tuple[T, ...]
    versions: Versions

    @property
    def version(self) -> str:
        """Return the resource version of the list."""
        return self.versions.version

    @property
    def next_page(self) -> str:
        """Return what asks for the next page."""
        return self.versions.next_page


@dataclass(frozen=True, slots=True)
class Event(Generic[T]):
    """A change. `object` is None for a bookmark, and for one that cannot be identified.

    `version` and `uid` are "" where the object has none that can be used.
    """

    type: EventType
    version: str
    uid: str
    object: T | None


class _Metadata(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Of any type: one that is odd must end no stream."""

    resource_version: object = ""
    uid: object = ""
    namespace: object = ""
    name: object = ""
    next_page: object = msgspec.field(name="continue", default="")


class _WithMetadata(msgspec.Struct, frozen=True, gc=False):
    metadata: _Metadata | None = None


class _Items(msgspec.Struct, frozen=True, gc=False):
    metadata: _Metadata | None = None
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, frozen=True, gc=False):
    code: int = 0
    message: str = ""
    reason: str = ""


_ITEMS = msgspec.json.Decoder(_Items)
_METADATA = msgspec.json.Decoder(_WithMetadata)
_EVENTS = msgspec.json.Decoder(_Event)
_STATUSES = msgspec.json.Decoder(_Status)
# RecursionError: a body may nest as deep as it likes.
_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Lines:
    """Cuts what is read into whole lines, and holds no more than the largest of them."""

    def __init__(self, largest_bytes: int = MAX_EVENT_BYTES) -> None:
        self._largest_bytes = largest_bytes
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are whole now. Raises `PodListMalformed` for one too long."""
        first, *others = chunk.split(b"\n")
        self._rest += first
        lines = []
        for other in others:
            lines.append(bytes(self._rest))
            self._rest = bytearray(other)
        if max(len(self._rest), *(len(line) for line in lines), 0) > self._largest_bytes:
            raise PodListMalformed(f"an event is larger than {self._largest_bytes} bytes")
        return [line for line in lines if line.strip()]

    @property
    def is_between(self) -> bool:
        """Return whether what was read ends with a whole line."""
        return not self._rest.strip()


def decode_page(kind: Kind[T], body: bytes | bytearray, flaws: Flaws) -> Page[T]:
    """Return one page of a list. Raises `PodListMalformed`."""
    return Page(kind.decode_list(body, flaws), decode_versions(body))


def decode_versions(body: bytes | bytearray) -> Versions:
    """Return the versions in one page of a PodList, or of its metadata. Raises as `decode_page`."""
    try:
        found = _ITEMS.decode(body)
    except _BROKEN as error:
        raise PodListMalformed(f"its metadata cannot be read: {error}") from None
    metadata = found.metadata or _Metadata()
    version = _text(metadata.resource_version)
    if not version:
        raise PodListMalformed("it has no resource version")
    # Without it pages would be missing, and their pods with them.
    if not isinstance(metadata.next_page, str | None):
        raise PodListMalformed("its `continue` is no text")
    pods = filter(None, map(_item_metadata, found.items or ()))
    by_uid = {_text(pod.uid): _text(pod.resource_version) for pod in pods}
    by_uid.pop("", None)
    return Versions(by_uid, version, metadata.next_page or "")


def _item_metadata(item: msgspec.Raw) -> _Metadata | None:
    """Return None for what is no pod: it takes nothing from the others."""
    try:
        return _METADATA.decode(item).metadata
    except _BROKEN:
        return None


def is_older(version: str, than: str) -> bool:
    """Return whether a resource version was given out before another.

    KEP-5504: they are decimal numbers that grow. Of others (an aggregated API server's) nothing
    is known.
    """
    return _is_number(version) and _is_number(than) and int(version) < int(than)


def _is_number(version: str) -> bool:
    return version.isascii() and version.isdigit() and len(version) <= _MAX_VERSION_DIGITS


def decode_event(kind: Kind[T], line: bytes, flaws: Flaws) -> Event[T]:
    """Return an event; what is odd of its object is counted in `flaws`, and breaks nothing.

    Raises `Expired`, `WatchFailed`, and `PodListMalformed`.
    """
    try:
        found = _EVENTS.decode(line)
        if found.type == "ERROR":
            raise _failure(_STATUSES.decode(found.object))
        metadata = _metadata(found.object)
    except _BROKEN as error:
        text = f"an event is none: {error} (of {len(line)} bytes)"
        raise PodListMalformed(text) from None
    try:
        event_type = EventType(found.type)
    except ValueError:
        raise PodListMalformed(f"an event is a {found.type[:32]!r}") from None
    version, uid = _text(metadata.resource_version), _text(metadata.uid)
    if event_type is EventType.DELETED and not uid:
        raise PodListMalformed("an event, DELETED, does not say which pod was deleted")
    made = None
    if event_type is not EventType.BOOKMARK:
        made = _object(kind, found.object, metadata, flaws)
    return Event(event_type, version, uid, made)


def decode_status(body: bytes) -> str:
    """Return what a Status says, "" if it is none."""
    try:
        return _STATUSES.decode(body).message
    except _BROKEN:
        return ""


def _failure(status: _Status) -> Exception:
    if status.code == HTTPStatus.GONE or status.reason in ("Expired", "Gone"):
        return Expired(status.message)
    words = "".join(one if one.isprintable() else " " for one in status.message[:400]).split()
    return WatchFailed(f"{status.code} {' '.join(words)}".rstrip(". "))


def _object(kind: Kind[T], raw: msgspec.Raw, metadata: _Metadata, flaws: Flaws) -> T | None:
    try:
        return kind.decode(raw, flaws)
    except PodListMalformed as error:
        name = f"{_text(metadata.namespace)}/{_text(metadata.name)}"
        flaws.left_out([f"an event of {name!r:.256}: {error}"], 1)
        return None


def _metadata(raw: msgspec.Raw) -> _Metadata:
    """Return the metadata of an object; nothing of it where it has none that can be read."""
    try:
        return _METADATA.decode(raw).metadata or _Metadata()
    except msgspec.ValidationError:
        return _Metadata()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
