"""The command `netutil`, run in this process."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Ended:
    code: int
    out: str
    err: str


Netutil = Callable[..., Ended]


def rows_of(text: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in text.splitlines()]
