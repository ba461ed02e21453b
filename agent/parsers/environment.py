"""The environment block of a process. Source: environ(7), proc_pid_environ(5)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables by name, and what could not be carried as it stands.

    `replaced_entries` counts entries that hold bytes which are not UTF-8 (they
    appear as U+FFFD), `skipped_entries` those without "=".
    """

    variables: dict[str, str]
    replaced_entries: int
    skipped_entries: int


def parse_environment(block: bytes) -> Environment:
    """Return the variables of a NUL-separated environment block.

    The first "=" ends the name, every other one and every newline belongs to
    the value. Of two entries with one name the first counts, as for getenv(3).
    Never raises: a process may write anything into its environment.
    """
    variables: dict[str, str] = {}
    replaced = skipped = 0
    for entry in block.split(b"\0"):
        if not entry:
            continue
        if b"=" not in entry:
            skipped += 1
            continue
        try:
            text = entry.decode("utf-8")
        except UnicodeDecodeError:
            text = entry.decode("utf-8", errors="replace")
            replaced += 1
        name, _, value = text.partition("=")
        variables.setdefault(name, value)
    return Environment(variables, replaced, skipped)
