"""Types of arguments, and the options that all commands share."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.output import write

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

JSONPATH = "jsonpath=TEMPLATE"


class Outputs(tuple[str, ...]):
    """The output formats of a command, the default first; usable as choices of argparse."""

    __slots__ = ()

    def __contains__(self, text: object) -> bool:
        """Whether the format is one of them. Any template is, if `JSONPATH` is one of them."""
        if super().__contains__(text):
            return True
        is_template = isinstance(text, str) and text.startswith("jsonpath=")
        return is_template and super().__contains__(JSONPATH)


OUTPUTS = Outputs(("table", "json", "yaml"))
TIMEOUT = "maximum time to wait for the answer: seconds, or 500ms, 60s, 2m (default: {})"
WATCHES = "end after this time: seconds, or 500ms, 60s, 2m (default: run until interrupted)"
_MAX_PID = 2**22  # PID_MAX_LIMIT, proc_sys_kernel(5)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Version(argparse.Action):
    """Prints the version; loads the package's metadata only then."""

    def __call__(  # noqa: D102 - the base's
        self, parser: argparse.ArgumentParser, *_arguments: object, **_options: object
    ) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415
        from platform import python_version  # noqa: PLC0415

        text = f"Python {python_version()}, grpcio {version('grpcio')}"
        parser._print_message(f"netutil {version('kube-netutil')} ({text})\n", sys.stdout)
        parser.exit()


def seconds(text: str) -> float:
    """A time, in seconds."""
    number = text.rstrip("hms")
    try:
        found = float(number) * _SECONDS[text.removeprefix(number) or "s"]
    except (ValueError, KeyError):
        found = math.nan
    if not (found > 0 and math.isfinite(found)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a positive number of seconds, nor one with ms, s, m or h"
        )
    return found


def awaited(text: str) -> str:
    """The interface of --wait: NAME or INTERFACE=NAME."""
    key, separator, name = text.rpartition("=")
    if not name or (separator and key.upper() != "INTERFACE"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form INTERFACE=net1")
    return name


def pid(text: str) -> int:
    """A PID."""
    is_short = len(text) <= len(str(_MAX_PID))
    number = int(text) if is_short and text.isascii() and text.isdecimal() else 0
    if not 0 < number <= _MAX_PID:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MAX_PID}")
    return number


_SHARED: dict[str, tuple[Callable[[str], object], str, str]] = {
    "socket": (str, "PATH", "the agent's Unix socket"),
    "pid": (
        pid,
        "PID",
        "ask about another process of the same pod, by its PID in your PID namespace",
    ),
    "admin-socket": (str, "PATH", "the agent's Unix socket for operators"),
}


class Parser(argparse.ArgumentParser):
    """Prints help without a traceback if the standard output is full or closed."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        if file is not sys.stdout or file is None:
            super()._print_message(message, file)
        elif (written := write(message)) is not Exit.OK:
            sys.exit(written)


def shared_options(
    *names: str,
    hidden: Sequence[str] = (),
    outputs: Outputs = OUTPUTS,
    timeout: str = TIMEOUT.format("5s"),
    commands: bool = False,
) -> argparse.ArgumentParser:
    """Options that may precede or follow a command: without defaults, which would hide the other.

    `names` are among "socket", "pid" and "admin-socket"; the help leaves out the `hidden` names.
    `commands` is True for a parser that has commands.
    """
    options = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument(
        "-o",
        "--output",
        choices=outputs,
        metavar="FORMAT" if commands else None,
        help=f"output format (default: {outputs[0]})"
        f"{'; the --help of a command lists its formats' if commands else ''}",
    )
    options.add_argument(
        "--timeout",
        dest="timeout_seconds",
        type=seconds,
        metavar="SECONDS",
        help=timeout,
    )
    for name in (*names, *hidden):
        kind, metavar, text = _SHARED[name]
        text = argparse.SUPPRESS if name in hidden else text
        options.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    options.add_argument("--version", action=Version, nargs=0, help="print the version")
    return options
