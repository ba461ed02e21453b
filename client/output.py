"""Writing to the standard output and the standard error, whatever becomes of their readers."""

from __future__ import annotations

import os
import shutil
import sys

from netutil.client.documents import error_document, to_json
from netutil.client.errors import NetUtilError
from netutil.client.exits import Exit
from netutil.client.tables import Style, harmless


def write(text: str) -> Exit:
    """Write to the standard output. UTF-8 where no terminal says otherwise."""
    try:
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        else:
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return Exit.BROKEN_PIPE
    except OSError as error:
        _discard_output()
        print(f"netutil: cannot write the output: {error.strerror}", file=sys.stderr)
        return Exit.FAILED
    return Exit.OK


def style() -> Style:
    """How the standard output is to look: bold and cut to size on a terminal only."""
    if not sys.stdout.isatty():
        return Style()
    colourless = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return Style(bold=not colourless, width=shutil.get_terminal_size().columns)


def complain(error: NetUtilError, output: str) -> None:
    """Say on the standard error what failed; an object with `-o json`."""
    print(complaint(error, output), file=sys.stderr, flush=True)


def complaint(error: NetUtilError, output: str) -> str:
    """What is said of an error."""
    if output == "json":
        return to_json(error_document(error), indent=None).rstrip("\n")
    lines = [f"netutil: {error.message}", *([error.advice] if error.advice else [])]
    return "\n".join(harmless(line.replace("\n", " ")) for line in lines)


def _discard_output() -> None:
    """Let the interpreter's own flush at exit find a stream that takes everything."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
