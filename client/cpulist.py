"""Sets of CPUs as the kernel prints them: "0-3,8" (bitmap.c, "%*pbl")."""

from __future__ import annotations

from collections.abc import Iterable

_MAX = 8191
"""The largest CPU number of any kernel (CONFIG_NR_CPUS is at most 8192)."""


def parse_cpulist(text: str) -> frozenset[int]:
    """The numbers of a list. Raises ValueError for what is none, or beyond every kernel's CPUs."""
    numbers: set[int] = set()
    for region in text.split(",") if text else ():
        first, dash, last = region.partition("-")
        low, high = _number(first), _number(last if dash else first)
        if low > high:
            raise ValueError(text[:80])
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def format_cpulist(numbers: Iterable[int]) -> str:
    """The shortest list of the numbers; "" for none."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ",".join(f"{low}-{high}" if low != high else str(low) for low, high in ranges)


def _number(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(_MAX))):
        raise ValueError(digits[:80])
    number = int(digits)
    if number > _MAX:
        raise ValueError(digits)
    return number
