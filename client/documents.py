"""Exact text for programs: JSON and YAML of the answers, in pure printable ASCII.

The names are the field names of `netutil.client.models`; times are RFC 3339.
Every control character is escaped as the format prescribes, so a document that
is shown on a terminal cannot steer it, and reads back as what it was.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from netutil.client.errors import NetUtilError


def rfc3339(time: datetime) -> str:
    """A time in UTC as text ("2026-01-31T12:00:00Z")."""
    return time.isoformat().replace("+00:00", "Z")


def document(value: Any) -> Any:
    """The value with dataclasses as objects and nothing that JSON does not have."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: document(getattr(value, name)) for name in names}
    match value:
        case Mapping():
            return {key: document(item) for key, item in value.items()}
        case list() | tuple():
            return [document(item) for item in value]
        case datetime():
            return rfc3339(value)
        case StrEnum():
            return str(value)
        case _:
            return value


def error_document(error: NetUtilError) -> dict[str, Any]:
    """What `-o json` prints about an error."""
    return {
        "error": {
            "code": error.code,
            "reason": error.reason,
            "message": error.message,
            "read": error.read,
            "advice": error.advice,
        }
    }


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON with an ended last line."""
    text = json.dumps(document(value), indent=indent, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"


def to_yaml(value: Any) -> str:
    """YAML 1.1 without folded lines."""
    import yaml  # noqa: PLC0415  only this format needs it

    return yaml.safe_dump(document(value), sort_keys=False, width=sys.maxsize)
