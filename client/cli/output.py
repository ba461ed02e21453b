"""Writing to the standard output and the standard error, also if they are full or closed."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress

from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.render.tables import Style
from netutil.client.documents import error_document, to_json
from netutil.client.errors import NetUtilError
from netutil.client.text import harmless


def write(text: str) -> Exit:
    """Write to the standard output: UTF-8, or in the encoding of a terminal."""
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
        say(f"netutil: cannot write the output: {error.strerror}")
        return Exit.FAILED
    return Exit.OK


def style() -> Style:
    """The style of the standard output: bold text and a width on a terminal only."""
    if not sys.stdout.isatty():
        return Style()
    colourless = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return Style(bold=not colourless, width=shutil.get_terminal_size().columns)


def complain(error: NetUtilError, output: str) -> None:
    """Print an error to the standard error; as an object with `-o json`."""
    say(complaint(error, output))


def say(text: str) -> None:
    """Write a line to the standard error. If that fails, only the exit code says what failed."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def complaint(error: NetUtilError, output: str) -> str:
    """The text of an error."""
    if output == "json":
        return to_json(error_document(error), indent=None).rstrip("\n")
    lines = [f"netutil: {error}", *([error.advice] if error.advice else [])]
    return "\n".join(harmless(line.replace("\n", " ")) for line in lines)


def _discard_output() -> None:
    """Redirect the standard output to /dev/null, so that the flush at exit succeeds."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
