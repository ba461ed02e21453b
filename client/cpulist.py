"""Sets of CPUs as the kernel prints them: "0-3,8" (bitmap.c, "%*pbl")."""

from __future__ import annotations

from collections.abc import Iterable


def numbers_of(text: str) -> frozenset[int]:
    """The numbers of a list. Raises ValueError for what is none."""
    numbers: set[int] = set()
    for region in text.split(",") if text else ():
        first, _, last = region.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return frozenset(numbers)


def list_of(numbers: Iterable[int]) -> str:
    """The shortest list of the numbers; "" for none."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ",".join(f"{low}-{high}" if low != high else str(low) for low, high in ranges)
