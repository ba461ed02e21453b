"""From the messages of the API to the values of `results` and `devices`. Pure.

A result has the fields of its message, under the same names; its type hints say
how each is read, so that no field has to be carried over by hand. A list has no
presence in a message: `results` says when an empty one is not known rather than empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from netutil.client.models.core import KNOWN_WITH, MESSAGE_FIELD, UNKNOWN_WITH
from netutil.client.models.devices import AttributeType, DeviceAttribute

_MAX_EXACT_INTEGER = 2**53
Result = TypeVar("Result")
_Read = Callable[[Message, str], Any]
"""Reads one field of a message, by its name."""
_ATTRIBUTE_TYPES = {
    f"{kind.removesuffix('s')}_value{'s' * kind.endswith('s')}": kind
    for kind in AttributeType
    if kind is not AttributeType.UNSPECIFIED
}
"""By field of the message DeviceAttribute."""
_READERS: dict[type[Any], dict[str, tuple[str, _Read]]] = {}
"""By type: of each of its fields the name in the message, and what reads it."""


def result(kind: type[Result], response: Message) -> Result:
    """The message as a value of that kind. Maps are ordered by key."""
    readers = _READERS.get(kind)
    if readers is None:
        hints = get_type_hints(kind)
        readers = _READERS[kind] = {
            one.name: (
                one.metadata.get(MESSAGE_FIELD, one.name),
                _reader(hints[one.name], one.metadata),
            )
            for one in _fields_of(kind)
        }
    return kind(**{name: read(response, field) for name, (field, read) in readers.items()})


def _fields_of(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _reader(hint: Any, metadata: Mapping[str, str]) -> _Read:
    if isinstance(hint, UnionType):
        (inner,) = (part for part in get_args(hint) if part is not NoneType)
        read = _reader(inner, {})
        if get_origin(inner) is tuple:
            return _list_if_known(read, metadata)
        return lambda message, name: read(message, name) if message.HasField(name) else None
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return lambda message, name: _member(hint, message, name)
    if get_origin(hint) is tuple:
        convert_each = _converter(get_args(hint)[0])
        return lambda message, name: tuple(map(convert_each, getattr(message, name)))
    convert = _converter(hint)
    return lambda message, name: convert(getattr(message, name))


def _list_if_known(read: _Read, metadata: Mapping[str, str]) -> _Read:
    """Read a list that may be not known, by what its field says of that."""
    if (known_with := metadata.get(KNOWN_WITH)) is not None:
        return lambda message, name: read(message, name) if message.HasField(known_with) else None
    if (unknown_with := metadata.get(UNKNOWN_WITH)) is not None:
        # Values beside the error are kept.
        return lambda message, name: (
            read(message, name) or (None if _says(message, unknown_with) else ())
        )
    return lambda message, name: read(message, name) or None


def _says(message: Message, error: str) -> bool:
    """Whether an error is there, be it a message or a sentence."""
    if message.DESCRIPTOR.fields_by_name[error].has_presence:
        return message.HasField(error)
    return bool(getattr(message, error))


def _converter(hint: Any) -> Callable[[Any], Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        return lambda message: result(hint, message)
    if hint is datetime:
        return _time
    if get_origin(hint) is Mapping:
        return _attributes if DeviceAttribute in get_args(hint) else _mapping
    return _same


def _same(value: Any) -> Any:
    return value


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _mapping(mapping: Struct | Mapping[str, Any]) -> dict[str, Any]:
    items = mapping.fields if isinstance(mapping, Struct) else mapping
    return {
        key: plain(value) if isinstance(value, Value) else value
        for key, value in sorted(items.items())
    }


def _attributes(attributes: Mapping[str, Message]) -> dict[str, DeviceAttribute]:
    return {name: attribute(message) for name, message in sorted(attributes.items())}


def attribute(message: Message) -> DeviceAttribute:
    """The attribute of a device: its only field that is set, which names the type."""
    for descriptor, value in message.ListFields():
        kind = _ATTRIBUTE_TYPES.get(descriptor.name)
        if kind is not None:
            return DeviceAttribute(kind, value if descriptor.has_presence else tuple(value))
    return DeviceAttribute(AttributeType.UNSPECIFIED, None)


def _member(kind: type[StrEnum], message: Message, name: str) -> StrEnum:
    """The member of a result's enum. A value that this client does not know is UNSPECIFIED."""
    enum: Any = message.DESCRIPTOR.fields_by_name[name].enum_type
    number = getattr(message, name)
    known = enum.values_by_number.get(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    unspecified: StrEnum = kind["UNSPECIFIED"]
    if known is None:
        return unspecified
    return kind.__members__.get(known.name.removeprefix(prefix), unspecified)


def plain(value: Value) -> Any:
    """The JSON value in a google.protobuf.Value. Whole numbers are int; no number is NaN."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "list_value":
            return [plain(item) for item in value.list_value.values]
        case "struct_value":
            return _mapping(value.struct_value)
        case _:
            return None


def _number(number: float) -> int | float | None:
    if not math.isfinite(number):
        return None
    if number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER:
        return int(number)
    return number
