"""A fuzz target: a parser, the results that it may have, and their bounds.

A target holds for every input, whatever mutated it: only errors that the parser promises come out,
what it returns is no larger than the input allows, and `holds` finds nothing wrong with it. An
error for a caller must fit into a gRPC status, since that is where it goes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from netutil.agent.errors import AgentError
from netutil.agent.messages.status import code_of, trailing_metadata

_MAX_STATUS_BYTES = 6 * 1024
"""Of the 8 KiB of trailers that every gRPC client takes; code and message are extra."""


def _nothing(data: bytes, found: Any) -> None:
    """Hold of whatever is found."""
    del data, found


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under attack.

    `parse` may raise `expected` and nothing else. What it returns is at most `most_times` the input
    and `most_more`, in characters and items, each counted at each of its places. `words` are what
    the input is made of, for the mutation.
    """

    name: str
    parse: Callable[[bytes], Any]
    seeds: tuple[bytes, ...]
    expected: tuple[type[Exception], ...] = (AgentError,)
    holds: Callable[[bytes, Any], None] = _nothing
    words: tuple[bytes, ...] = ()
    most_times: int = 4
    most_more: int = 4096
    largest_bytes: int = 8192
    slow: bool = False
    """Each input goes through sockets: a hundredth of the others' inputs in a short run."""

    def run(self, data: bytes) -> None:
        """Raise AssertionError, or what the parser should not have raised, for a finding."""
        try:
            found = self.parse(data)
        except self.expected as error:
            if isinstance(error, AgentError):
                _ensure_tellable(error)
            return
        most = self.most_times * len(data) + self.most_more
        assert size(found, most) <= most, f"{len(data)} bytes became more than {most}"
        self.holds(data, found)


def _ensure_tellable(error: AgentError) -> None:
    code_of(error)
    ((_, details),) = trailing_metadata(error)
    assert len(details) <= _MAX_STATUS_BYTES, f"{error.reason} takes {len(details)} bytes"


def size(value: object, most: int) -> int:
    """Return how many characters and items a value has, or some number above `most`.

    A value in two places counts twice, as it does once it is sent.
    """
    total = 0
    left = [value]
    while left and total <= most:
        one = left.pop()
        total += 1
        if isinstance(one, str | bytes | bytearray):
            total += len(one)
        elif isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif isinstance(one, msgspec.Struct):
            left += [getattr(one, name) for name in one.__struct_fields__]
        elif dataclasses.is_dataclass(one):
            left += [getattr(one, field.name) for field in dataclasses.fields(one)]
    return total
