"""The kernel's notation for sets of numbers: "0-3,8".

Source: the kernel's admin-guide/kernel-parameters.rst, "cpu lists", also for the
form with groups: "0-15:2/4" is the first two of every four.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from netutil.agent.errors import FailedPrecondition, Reason

MAX_NUMBER = 8191
"""The largest CPU number of any kernel (CONFIG_NR_CPUS is at most 8192)."""
_MAX_DIGITS = 6
_REGION = re.compile(
    rf"(?P<first>[0-9]{{1,{_MAX_DIGITS}}})"
    rf"(?:-(?P<last>[0-9]{{1,{_MAX_DIGITS}}})"
    rf"(?::(?P<used>[0-9]{{1,{_MAX_DIGITS}}})/(?P<group>[0-9]{{1,{_MAX_DIGITS}}}))?)?"
)


def parse_cpu_list(text: str, *, read: str) -> tuple[int, ...]:
    """Return the numbers of a list, ascending, none twice; () for an empty one.

    Raises `FailedPrecondition` for what is no list of the kernel's, or names a number
    beyond `MAX_NUMBER`. `read` names the file, for that error.
    """
    numbers: set[int] = set()
    stripped = text.strip()
    for region in stripped.split(",") if stripped else ():
        match = _REGION.fullmatch(region)
        if match is None:
            raise _malformed(f"{region[:40]!r} is no range of it", read)
        first = int(match["first"])
        last = int(match["last"] or first)
        used, group = int(match["used"] or 1), int(match["group"] or 1)
        if first > last or not group or used > group:
            raise _malformed(f"{region!r} is no range of it", read)
        if last > MAX_NUMBER:
            raise _malformed(f"no CPU has the number {last}", read)
        if used == group:
            numbers.update(range(first, last + 1))
            continue
        for start in range(first, last + 1, group):
            numbers.update(range(start, min(start + used, last + 1)))
    return tuple(sorted(numbers))


def format_cpu_list(numbers: Iterable[int]) -> str:
    """Return the list of `numbers` in the kernel's shortest form without groups; "" for none."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _malformed(why: str, read: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.CPU_LIST_MALFORMED,
        f"A list of CPUs is not in the kernel's notation: {why}.",
        read=read,
    )
