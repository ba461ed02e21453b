"""The annotation of a pod that holds JSON: its shape is checked, and an error says where it breaks.

What stands in it may be a stranger's: it is bounded in depth, and what an answer cannot carry is
refused here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from netutil.agent.errors import Inconsistent, Reason

T = TypeVar("T")
_DEEPEST = 20
"""Levels of lists and objects. The standards need 5; protobuf readers give up at about 30."""
_LARGEST_NUMBER_DIGITS = 300
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")


class Malformed(Exception):
    """A value is not what the specification says; `where` is its path in the annotation."""

    def __init__(self, where: str, expected: str, found: object) -> None:
        shown = json.dumps(found, ensure_ascii=True)
        super().__init__(f"{where} must be {expected}, not {shown[:60]}")


def is_set(text: str) -> bool:
    """Return whether an annotation says anything: not if it is blank, or JSON's null.

    Multus clears network-status so on a pod's teardown, and others make it so before they first
    write it. An empty list, in contrast, is one.
    """
    return text.strip() not in ("", "null")


def parse_annotation(
    text: str,
    convert: Callable[[object], T],
    *,
    read: str,
    subject: str = "The pod's network status",
) -> T:
    """Return what `convert` makes of the document.

    Raises `Inconsistent` that says where the text breaks. `read` names the annotation and the
    pod, for that error; `subject` begins its sentence.
    """
    try:
        document = json.loads(text, parse_int=_integer)
        _ensure_sendable("", document, 1)
        return convert(document)
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
    except RecursionError:
        problem = f"it is nested more than {_DEEPEST} levels deep"
    except Malformed as error:
        problem = str(error)
    raise Inconsistent(
        Reason.NETWORK_STATUS_MALFORMED,
        f"{subject} cannot be used: {problem}.",
        read=read,
        advice="The annotation is written by the CNI meta-plugin (Multus, OVN-Kubernetes) or a"
        " plugin; mend it there.",
    )


def _ensure_sendable(where: str, value: object, level: int) -> None:
    """Raise `Malformed` for what Python's JSON lets pass and an answer cannot carry."""
    here = where or "the annotation"
    if isinstance(value, str):
        _ensure_text(here, value)
    elif isinstance(value, int | float):
        if not math.isfinite(value):
            raise Malformed(here, "a finite number", value)
    elif isinstance(value, list | dict):
        if level > _DEEPEST:
            raise Malformed(here, f"at most {_DEEPEST} levels deep", value)
        entries = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in entries:
            if isinstance(key, str):
                _ensure_text(f"a key of {here}", key)
            _ensure_sendable(where + _step(key), item, level + 1)


def _ensure_text(where: str, text: str) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Malformed(where, "text without a lone surrogate", text)


def _step(key: int | str) -> str:
    """Return a key as part of a path; what is in it was chosen by a stranger."""
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if _PLAIN_KEY.fullmatch(key) else f"[{json.dumps(key)[:60]}]"


def take(
    found: dict[str, Any], where: str, key: str, convert: Callable[[str, object], T], absent: T
) -> T:
    """Remove a key and return its value; null counts as absent, as in Go's encoding/json."""
    value = found.pop(key, None)
    return absent if value is None else convert(f"{where}.{key}", value)


def an_object(where: str, value: object) -> dict[str, Any]:
    """Return the value, or raise `Malformed` for what is no object."""
    if not isinstance(value, dict):
        raise Malformed(where, "an object", value)
    return value


def a_list(where: str, value: object) -> list[object]:
    """Return the value, or raise `Malformed` for what is no list."""
    if not isinstance(value, list):
        raise Malformed(where, "a list", value)
    return value


def a_string(where: str, value: object) -> str:
    """Return the value, or raise `Malformed` for what is no string."""
    if not isinstance(value, str):
        raise Malformed(where, "a string", value)
    return value


def strings(where: str, value: object) -> tuple[str, ...]:
    """Return the items, or raise `Malformed` for what is no list of strings."""
    return tuple(
        a_string(f"{where}[{number}]", item) for number, item in enumerate(a_list(where, value))
    )


def a_boolean(where: str, value: object) -> bool:
    """Return the value, or raise `Malformed` for what is neither true nor false."""
    if not isinstance(value, bool):
        raise Malformed(where, "true or false", value)
    return value


def _integer(digits: str) -> int | float:
    """Return the number; infinity for one too large to send (int refuses over 4300 digits)."""
    return int(digits) if len(digits) <= _LARGEST_NUMBER_DIGITS else float(digits)
