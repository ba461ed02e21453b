"""The agent with every Python call counted: `python -P bench/traced_agent.py OUTPUT FLAGS…`.

SIGUSR1 begins to count, in all threads; SIGUSR2 ends it and writes what was counted to OUTPUT.
A step of a coroutine is a call, as it is for the interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from netutil.agent import __main__ as agent

_TREE = Path(__file__).parent.parent


class Tracer:
    """Counts calls, and calls from one file into another."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._counts = False
        self._calls: list[tuple[CodeType, CodeType | None]] = []

    def begin(self, *_: object) -> None:
        """Begin to count."""
        self._calls.clear()
        self._counts = True

    def end(self, *_: object) -> None:
        """Write what was counted: `[file, function, calls]` of each function, and the moves."""
        self._counts = False
        functions: Counter[tuple[str, str]] = Counter()
        moves = 0
        for code, caller in self._calls:
            if code.co_filename == __file__:
                continue
            functions[_place(code.co_filename), code.co_qualname] += 1
            moves += caller is not None and caller.co_filename not in (code.co_filename, __file__)
        counted = {"moves": moves, "functions": [[*k, n] for k, n in functions.most_common()]}
        made = self._output.with_suffix(".new")
        made.write_text(json.dumps(counted))
        made.rename(self._output)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Note a call. Appending takes no lock of its own (`threading.setprofile`)."""
        if self._counts and event == "call":
            back = frame.f_back
            self._calls.append((frame.f_code, back.f_code if back is not None else None))


def _place(file: str) -> str:
    """Return a file's name below the tree or the standard library."""
    path = Path(file).resolve()  # the agent's own are imported through links
    for root in (_TREE, Path(os.__file__).parent):
        if path.is_relative_to(root):
            return str(path.relative_to(root))
    return file


def main() -> int:
    """Run the agent; return its exit code."""
    tracer = Tracer(Path(sys.argv.pop(1)))
    signal.signal(signal.SIGUSR1, tracer.begin)
    signal.signal(signal.SIGUSR2, tracer.end)
    threading.setprofile(tracer)
    sys.setprofile(tracer)
    return agent.main()


if __name__ == "__main__":
    sys.exit(main())
