"""Programs that a machine may lack."""

from __future__ import annotations

import shutil

import pytest

SHELLS = ("zsh", "fish")
"""Debian's packages, for the completion of commands; `make examples` installs them."""


def needs(*names: str, path: str | None = None) -> None:
    """Skip where a program is missing; `make examples` installs all of them."""
    missing = [name for name in names if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; make examples installs that")
