"""Counts and logs what the agent could not understand in pods."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from cachetools import TTLCache

_LOG = logging.getLogger(__name__)

_SAID_AGAIN_SECONDS = 590.0
"""Ten minutes, with the sweep that releases it (`age`)."""
_MAX_REMEMBERED = 1024
_MAX_SHOWN = 3


class SaidLines:
    """The lines that the log had of late. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lines: TTLCache[str, None] = TTLCache(_MAX_REMEMBERED, _SAID_AGAIN_SECONDS, clock)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._lines)

    def age(self) -> None:
        """Release the lines that are so old that they are said again."""
        with self._lock:
            self._lines.expire()

    def is_new(self, line: str) -> bool:
        """Return whether a line is to be said, and note that it is."""
        with self._lock:
            known = line in self._lines
            if not known:
                self._lines[line] = None
            return not known


class Flaws:
    """Counts fields that were not understood, and entries that were left out. Thread-safe.

    Both counters grow at each reading: a flaw that stays in a list that is read every ten
    seconds counts every ten seconds. The log has the same line once in ten minutes.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self.fields = 0
        """Fields of pods that were read as unknown."""
        self.entries = 0
        """Entries that are no pod, or a pod without a name, a namespace or a UID."""
        self.last_entry = ""
        """Why the last of those entries was left out, "" before the first."""
        self.entries_of_last_list = 0
        """Such entries of the list, or of the page of one, that was read last."""
        self.said = SaidLines(clock)
        self._lock = threading.Lock()

    def in_pod(self, pod: str, fields: Sequence[str]) -> None:
        """Count the fields of a pod ("namespace/name"), each as "path is …"."""
        self._add(fields=len(fields))
        shown = "; ".join(fields[:_MAX_SHOWN])
        more = f"; and {len(fields) - _MAX_SHOWN} more" if len(fields) > _MAX_SHOWN else ""
        if self.said.is_new(f"{pod} {shown}{more}"):
            text = "pod list: pod %.256r is known, but not all of it: %.512s%s"
            _LOG.warning(text, pod, shown, more)

    def of_list(self, reasons: Sequence[str], whole: int) -> None:
        """Count the entries that were left out of a list, as `left_out`, and keep their number."""
        self.entries_of_last_list = len(reasons)
        self.left_out(reasons, whole)

    def left_out(self, reasons: Sequence[str], whole: int) -> None:
        """Count the entries that were left out of a list of `whole`; none says nothing."""
        if not reasons:
            return
        self._add(entries=len(reasons))
        self.last_entry = reasons[0]
        if self.said.is_new(f"{len(reasons)} {whole} {reasons[0]}"):
            text = "pod list: %d of %d left out; the first, %s"
            _LOG.warning(text, len(reasons), whole, reasons[0])

    def _add(self, fields: int = 0, entries: int = 0) -> None:
        with self._lock:
            self.fields += fields
            self.entries += entries
