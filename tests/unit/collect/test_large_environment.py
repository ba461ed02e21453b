"""A large environment is processed off the event loop, however few its variables are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from netutil.agent.collect.caller import Caller
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import MAX_BLOCK_BYTES, held_environment
from netutil.agent.collect.results import Allocated
from netutil.agent.messages.answers import Answers
from netutil.agent.watch.stream import _size


class Sizes:
    """Notes what it is said to make something of."""

    def __init__(self) -> None:
        self.noted: list[int | None] = []

    async def run_sized(
        self, _: str, make: Callable[[], Any], size: int | None = None, share: object = None
    ) -> Any:
        self.noted.append(size)
        return make()


SMALL = b"A=1\0B=2\0"
LARGE = b"A=" + b"x" * MAX_BLOCK_BYTES + b"\0B=2\0"


@pytest.mark.parametrize(
    ("block", "key", "size"),
    [
        (SMALL, "", 2),
        (SMALL, "A", 1),
        (LARGE, "", None),
        (LARGE, "A", None),
    ],
)
async def test_a_large_environment_is_encoded_off_the_loop(
    block: bytes, key: str, size: int | None
) -> None:
    sizes = Sizes()
    answers = Answers(cast(Collector, SimpleNamespace(reads=sizes)))
    caller = cast(Caller, SimpleNamespace(peer=SimpleNamespace(pod_key="pod")))
    answer = answers.env(caller, held_environment(block), key)
    assert isinstance(answer, Awaitable)
    await answer
    assert sizes.noted == [size]


def test_the_digest_of_a_large_environment_is_made_off_the_loop() -> None:
    assert _size((held_environment(SMALL), Allocated())) == len(("A", "B"))
    assert _size((held_environment(LARGE), Allocated())) is None
    assert _size((None, Allocated())) == 0
