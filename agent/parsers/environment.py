"""The environment block of a process. Source: environ(7), proc_pid_environ(5)."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from dataclasses import dataclass

from netutil.agent.errors import Exhausted, Reason

MAX_ENTRY_BYTES = 32 * resource.getpagesize()
"""No program is started with a longer entry (MAX_ARG_STRLEN, execve(2)): 128 KiB of pages of 4 KiB.
Only a process that moves its environment (PR_SET_MM) has longer ones."""
MAX_ENTRIES = 65_536
"""An environment of 2 MiB, which a stack of 8 MiB allows (execve(2)), has fewer if an entry and its
pointer take 32 bytes on average."""
_SLICE_BYTES = 64 * 1024


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
    A process may write anything into its environment: raises `Exhausted` for more than
    `MAX_ENTRIES`, or for one longer than `MAX_ENTRY_BYTES`, and nothing else.
    """
    variables: dict[str, str] = {}
    replaced = skipped = 0
    for entry in _entries(block):
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


def _entries(block: bytes) -> Iterator[bytes]:
    """Yield the entries that are not empty. Raises `Exhausted` past a limit.

    The block is split in slices: a call of C holds the interpreter's lock to its end, and so keeps
    the event loop waiting.
    """
    count = 0
    for part in _slices(block):
        for entry in part.split(b"\0"):
            if not entry:
                continue
            count += 1
            if count > MAX_ENTRIES:
                raise _too_large(f"has more than {MAX_ENTRIES} entries")
            if len(entry) > MAX_ENTRY_BYTES:
                raise _entry_too_long()
            yield entry


def _slices(block: bytes) -> Iterator[bytes]:
    """Yield the block in slices that end with an entry, none much longer than the longest one."""
    start = 0
    while start < len(block):
        least = start + _SLICE_BYTES
        most = least + MAX_ENTRY_BYTES + 1
        end = block.find(b"\0", least, most)
        if end < 0:
            if most < len(block):
                raise _entry_too_long()
            end = len(block)
        yield block[start:end]
        start = end + 1


def _entry_too_long() -> Exhausted:
    return _too_large(f"has an entry of more than {MAX_ENTRY_BYTES} bytes")


def _too_large(what: str) -> Exhausted:
    return Exhausted(
        Reason.ENVIRONMENT_TOO_LARGE,
        f"The process's environment {what}.",
        read="/proc/<pid>/environ",
        advice="Pass large values in a file. enableServiceLinks: false leaves the variables of"
        " services out.",
    )
