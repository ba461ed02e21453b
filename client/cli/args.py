"""What the commands' arguments have in common: their kinds, and options that all take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NoReturn

OUTPUTS = ("table", "json", "yaml")
_MAX_PID = 2**22  # PID_MAX_LIMIT, proc_sys_kernel(5)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Version(argparse.Action):
    """Prints the version; loads the package's metadata only then."""

    def __call__(  # noqa: D102 - the base's
        self, parser: argparse.ArgumentParser, *_arguments: object, **_options: object
    ) -> NoReturn:
        from importlib.metadata import version  # noqa: PLC0415

        print(f"netutil {version('netutil')}")
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
    """The name of an interface that is waited for."""
    key, separator, name = text.rpartition("=")
    if not name or (separator and key.upper() != "INTERFACE"):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form INTERFACE=net1")
    return name


def pid(text: str) -> int:
    """The number of a process."""
    is_short = len(text) <= len(str(_MAX_PID))
    number = int(text) if is_short and text.isascii() and text.isdecimal() else 0
    if not 0 < number <= _MAX_PID:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MAX_PID}")
    return number


def shared_options(
    *,
    of_node: bool,
    of_pod: bool,
    outputs: Sequence[str] = OUTPUTS,
    timeout: str = "longest time to wait for the answer (5; with --wait 60); 500ms, 60s, 2m",
) -> argparse.ArgumentParser:
    """Options that stand before or after a command: never a default that hides the other."""
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("-o", "--output", choices=outputs, help=f"how to print ({outputs[0]})")
    options.add_argument(
        "--timeout",
        dest="timeout_seconds",
        type=seconds,
        metavar="SECONDS",
        help=timeout,
    )
    if of_pod:
        options.add_argument("--socket", metavar="PATH", help="the agent's socket")
        options.add_argument(
            "--pid", type=pid, metavar="PID", help="another process of the pod, as seen from here"
        )
    if of_node:
        options.add_argument("--admin-socket", metavar="PATH", help="the agent's operator socket")
    options.add_argument("--version", action=Version, nargs=0, help="print the version")
    return options
