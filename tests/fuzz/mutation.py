"""Mutation of seeds by a number, without coverage: the same number gives the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.fuzz.target import Target


def inputs(target: Target, number: int) -> Iterator[bytes]:
    """Yield the seeds, then mutations of them without end."""
    yield from target.seeds
    yield b""
    random = Random(f"{target.name} {number}")  # noqa: S311 - it only has to vary
    kept = list(target.seeds)
    while True:
        data = bytearray(random.choice(kept))
        for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
            _mutate(data, target, random)
        yield bytes(data[: target.largest_bytes])


def _mutate(data: bytearray, target: Target, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    end = min(len(data), at + random.choice((1, 2, 4, 16, 64)))
    match random.randrange(8):
        case 0:
            del data[at:end]
        case 1:
            data[at:at] = data[at:end] * random.choice((1, 2, 40))
        case 2:
            data[at:end] = random.randbytes(end - at)
        case 3 if at < len(data):
            data[at] ^= 1 << random.randrange(8)
        case 4:
            other = random.choice(target.seeds)
            begin = random.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + random.choice((4, 16, 64, 256))]
        case 5:
            del data[at:]
        case _:
            words = target.words or (b"\0", b"\xff", b"-", b"0")
            data[at : random.choice((at, end))] = random.choice(words)
