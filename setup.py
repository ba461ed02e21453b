"""Builds the wheel. With NETUTIL_COMPILE=1, modules of the agent become machine code.

`netutil:compiled` in setup.cfg names them, and docs/adr/0014-compile-the-grpc-server.md says why.
mypyc translates each to C. Without the variable the wheel is of Python alone, for any machine.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup

_ROOT = Path(__file__).parent.resolve()
_MADE = _ROOT / "build" / "mypyc"


def extensions() -> list[Extension]:
    """Return the modules to compile; none unless the environment asks for them."""
    if os.environ.get("NETUTIL_COMPILE") != "1":
        return []
    if {"develop", "editable_wheel"} & set(sys.argv):
        # They would lie beside the sources, and be imported in their place from then on.
        sys.exit("NETUTIL_COMPILE=1 is not for an editable installation")
    from mypyc.build import mypycify  # noqa: PLC0415 - only where something is compiled

    settings = configparser.ConfigParser()
    settings.read(_ROOT / "setup.cfg", encoding="utf-8")
    modules = settings["netutil:compiled"]["modules"].split()
    files = [f"{module.replace('.', '/')}.py" for module in modules]
    with _tree(dict(line.split(" = ") for line in _lines(settings["options"]["package_dir"]))):
        # Larger code is no faster here, and stays in memory.
        options = [f"--config-file={_ROOT / 'setup.cfg'}", *files]
        found = mypycify(options, opt_level="s", target_dir=str(_MADE), group_name="netutil_agent")
    for one in found:
        one.extra_link_args.append("-s")
    return [one for one in found if isinstance(one, Extension)]


@contextlib.contextmanager
def _tree(package_dir: dict[str, str]) -> Iterator[None]:
    """Work where the packages lie as they are imported: mypy does not read `package_dir`."""
    tree = _MADE / "tree"
    for package, directory in package_dir.items():
        link = tree / package.replace(".", "/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(_ROOT / directory)
    with contextlib.chdir(tree):
        yield


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


setup(ext_modules=extensions())
