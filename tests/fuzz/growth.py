"""Measures whether a parser's time grows faster than its input, in one run on one machine.

What is repeated is cut out of the seeds at random: whatever a parser does again for each part of
its input that it has seen before shows when there are twice and four times as many parts.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.fuzz.target import Target

_MIN_SECONDS = 0.004
"""A measurement below it is noise; the input is doubled until it takes as long."""
_MAX_BYTES = 1024 * 1024
_MAX_RATIO = 9.0
"""For an input four times as long: linear time gives 4, quadratic 16."""
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Repeated:
    """An input of as many parts as one likes."""

    before: bytes
    part: bytes
    after: bytes

    def times(self, count: int) -> bytes:
        """Return the input with that many parts."""
        return self.before + self.part * count + self.after


def cuts(target: Target, number: int, count: int) -> list[Repeated]:
    """Return parts of seeds and of words, to be repeated where they stand; always the same."""
    random = Random(f"{target.name} {number}")  # noqa: S311 - it only has to vary
    found = []
    for _ in range(count):
        seed = random.choice(target.seeds)
        begin = random.randrange(len(seed) + 1)
        end = min(len(seed), begin + random.choice((1, 3, 8, 32, 128, 512)))
        part = seed[begin:end] if random.randrange(3) or not target.words else b""
        part = part or b"".join(random.choices(target.words or (b"\0",), k=random.choice((1, 2))))
        found.append(Repeated(seed[:begin], part, seed[end:]))
    return found


def slowdown(target: Target, shape: Repeated) -> float | None:
    """Return how much longer four times as many parts take; None if they take no time.

    The smallest of several ratios: a machine that is busy makes one larger, not all.
    """
    count = 64
    while (taken := _seconds(target.parse, shape.times(count))) < _MIN_SECONDS:
        count *= 2
        if len(shape.part) * count > _MAX_BYTES:
            return None
    del taken
    return min(
        _seconds(target.parse, shape.times(4 * count)) / _seconds(target.parse, shape.times(count))
        for _ in range(_LOOKS)
    )


def is_too_slow(target: Target, shape: Repeated) -> bool:
    """Return whether the time grows faster than the input."""
    ratio = slowdown(target, shape)
    return ratio is not None and ratio > _MAX_RATIO


def _seconds(parse: Callable[[bytes], object], data: bytes) -> float:
    gc.disable()
    started = time.thread_time()
    with contextlib.suppress(Exception):  # how long a refusal takes counts as well
        parse(data)
    gc.enable()
    return time.thread_time() - started
