"""Files of a login at the API server: bounded, and without a name where they hold a key."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from netutil.agent.errors import Unavailable
from netutil.agent.pods.sources.base import Signature, signature, unavailable

MAX_TOKEN_BYTES = 64 * 1024
MAX_FILE_BYTES = 1024 * 1024
"""The largest kubeconfig, and the largest bundle of certificates."""
_UNNAMED_FILES = "/dev/shm"  # noqa: S108 - files without a name, which no other process can open


@dataclass(frozen=True, slots=True)
class Named:
    """A file and the flag that names it."""

    flag: str
    path: str


def ensure_usable(file: Named, most_bytes: int) -> None:
    """Raise `Unavailable` for what is no regular file, or larger: the package reads it whole."""
    try:
        found = os.stat(file.path)
    except OSError as error:
        raise unusable_file(file, error.strerror or str(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise unusable_file(file, "it is no regular file")
    if found.st_size > most_bytes:
        raise unusable_file(file, f"it is larger than {most_bytes} bytes")


def read_kubeconfig(file: Named) -> tuple[bytes, Signature]:
    """Return the content and what changes with it. Raises `Unavailable`."""
    ensure_usable(file, MAX_FILE_BYTES)
    try:
        with Path(file.path).open("rb") as opened:
            found = signature(os.fstat(opened.fileno()))
            return opened.read(MAX_FILE_BYTES), found
    except OSError as error:
        raise unusable_file(file, error.strerror or str(error)) from None


def unnamed(content: bytes, files: ExitStack, unusable: Callable[[str], Exception]) -> str:
    """Return the path of a file in memory, without a name, until the stack ends.

    Raises what `unusable` makes of a reason.

    The package itself writes keys to named files, and keeps them and their content until the
    process ends. The hardened variant has no memfd_create.
    """
    try:
        file = files.enter_context(
            tempfile.TemporaryFile(dir=_UNNAMED_FILES, buffering=0)  # noqa: SIM115 - the stack's
        )
        file.write(content)
    except OSError as error:
        raise unusable(f"{_UNNAMED_FILES} cannot be written: {error.strerror}") from None
    return f"/proc/self/fd/{file.fileno()}"


def unusable_file(file: Named, why: str) -> Unavailable:
    """Return the error of a file."""
    return unavailable(
        f"The file of {file.flag}, {file.path}, cannot be used: {why}.",
        file.path,
        "The agent reads the file again at the next try.",
    )


def shown(text: str) -> str:
    """Return the beginning of a text as one line that can be printed."""
    words = "".join(one if one.isprintable() else " " for one in text).split()
    return f"{' '.join(words):.300}".rstrip(". ")
