"""Decodes a document that does not fit its type everywhere. Pure.

A pod is decoded strictly first, which is fast. Only a pod that fails comes here: what fits is
taken, what does not is left unset, and its path is returned. Nothing is converted or guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect
from netutil.agent.parsers.json_value import is_text, what_is

_MAX_DIGITS = 300
"""Of an integer; Python needs time that grows with their square."""


class UnnamedEntry(ValueError):
    """The document names no object. The text is "path is …"."""


class _Unset:
    """A value that does not fit."""


_UNSET = _Unset()
Odd = tuple[str, str]
"""The path of what does not fit, and what is there: "null", "a number", …"""


class Rules(msgspec.Struct, frozen=True):
    """What counts beyond the types. Names are those of the document."""

    identity: frozenset[str]
    """Paths of text without which the object is not known."""
    counted: frozenset[str]
    """Paths of lists of which the length counts: what does not fit stays as an empty object."""
    marked: Mapping[str, str]
    """Last names of objects, to the name of a flag that is set where they do not fit."""


def load_leniently(body: bytes | bytearray) -> object:
    """Return a document in JSON; text that is not UTF-8 has surrogates (PEP 383).

    Raises ValueError or RecursionError for what is no JSON.
    """
    return json.loads(body.decode("utf-8", "surrogateescape"), parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def fit(document: object, kind: type, rules: Rules) -> tuple[Any, list[Odd]]:
    """Return a document that converts to the type `kind`, and what of it was left out.

    Raises `UnnamedEntry`.
    """
    fitting = _Fitting(rules)
    fitted = fitting.value(document, inspect.type_info(kind), "")
    if fitted is _UNSET:
        raise UnnamedEntry(f"it is {what_is(document)}")
    return fitted, fitting.odd


class _Fitting:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.odd: list[Odd] = []

    def value(self, value: object, info: inspect.Type, path: str) -> object:
        match info:
            case inspect.StructType():
                return self._object(value, info, path)
            case inspect.UnionType():
                if value is None:
                    return None
                (inner,) = (one for one in info.types if not isinstance(one, inspect.NoneType))
                return self.value(value, inner, path)
            case inspect.VarTupleType():
                return self._list(value, info, path)
            case inspect.DictType():
                return self._mapping(value, info, path)
            case inspect.AnyType():
                return value
            case inspect.StrType():
                fits = isinstance(value, str) and is_text(value, info.min_length or 0)
            case inspect.BoolType():
                fits = isinstance(value, bool)
            case _:
                raise TypeError(f"no rule for {info}")
        return value if fits else self._note(value, path)

    def _note(self, value: object, path: str) -> _Unset:
        if path in self._rules.identity:
            raise UnnamedEntry(f"$.{path} is {what_is(value)}")
        self.odd.append((path, what_is(value)))
        return _UNSET

    def _object(self, value: object, info: inspect.StructType, path: str) -> object:
        marked = self._rules.marked.get(path.rpartition(".")[2])
        if not isinstance(value, dict):
            self._note(value, path)
            return _UNSET if marked is None else {marked: True}
        found: dict[str, object] = {}
        for field in info.fields:
            name = field.encode_name
            if name.startswith("-"):
                continue  # derived: no document has it
            inside = f"{path}.{name}" if path else name
            if name in value:
                one = self.value(value[name], field.type, inside)
                if one is not _UNSET:
                    found[name] = one
                elif marked is not None:
                    return {marked: True}
            elif inside in self._rules.identity and field.required:
                raise UnnamedEntry(f"$.{inside} is missing")
            elif field.required:
                self.odd.append((inside, "missing"))
            if field.required and name not in found:
                found[name] = "" if isinstance(field.type, inspect.StrType) else {}
        return found

    def _list(self, value: object, info: inspect.VarTupleType, path: str) -> object:
        counts = path in self._rules.counted
        if not isinstance(value, list | tuple):
            self._note(value, path)
            return [{}, {}] if counts else _UNSET
        found = []
        for number, item in enumerate(value):
            one = self.value(item, info.item_type, f"{path}[{number}]")
            if one is not _UNSET:
                found.append(one)
            elif counts:
                found.append({})
        return found

    def _mapping(self, value: object, info: inspect.DictType, path: str) -> object:
        if not isinstance(value, dict):
            return self._note(value, path)
        found = {}
        for key, item in value.items():
            if not (isinstance(key, str) and is_text(key, 0)):
                self.odd.append((f"{path}[{key!r:.64}]", f"a name that is {what_is(key)}"))
                continue
            one = self.value(item, info.value_type, f"{path}[{key}]")
            if one is not _UNSET:
                found[key] = one
        return found
