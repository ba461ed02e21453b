"""The parts of an answer that fail, and what their errors keep."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.messages import all_facts


class Environment:
    """What a part has read."""


def _at_once(read: Environment) -> Any:
    _fail(read)


async def _later(read: Environment) -> Any:
    _fail(read)


def _fail(read: Environment) -> None:
    assert read is not None
    raise Unavailable(Reason.READ_TIMED_OUT, "late", read="a file", advice="none")


@pytest.mark.parametrize("part", [_at_once, _later])
async def test_a_failed_part_keeps_what_it_read_for_its_error_only(
    part: Callable[[Environment], Any],
) -> None:
    read = Environment()
    left = weakref.ref(read)
    gc.collect()
    gc.disable()
    try:
        made = await all_facts._made({"pod": lambda: part(left() or Environment())})
        assert isinstance(made["pod"], Unavailable)
        del made, read
        assert left() is None
    finally:
        gc.enable()
