"""Keeps files that are slow to make under ~/.cache/netutil, with their checksums."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "netutil")


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Keep other processes out, of tests that run side by side."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """Return the kept file of that name; `make` writes it where there is none that is whole."""
    path = CACHE / name
    if not is_whole(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fresh-", dir=path.parent) as scratch:
            fresh = Path(scratch, path.name)
            make(fresh)
            keep(fresh, path)
    return path


def keep(fresh: Path, path: Path) -> None:
    """Move a file into the cache; killed meanwhile, it leaves nothing that looks whole."""
    _checksum_file(path).unlink(missing_ok=True)
    checksum = _checksum(fresh)
    fresh.replace(path)
    _checksum_file(path).write_text(checksum, encoding="ascii")


def is_whole(path: Path) -> bool:
    """Return whether the file exists and is the one that was kept."""
    try:
        return _checksum_file(path).read_text(encoding="ascii") == _checksum(path)
    except FileNotFoundError:
        return False


def keep_newest(path: Path, pattern: str, most: int) -> None:
    """Note that a kept file was used, and remove all but the last used beside it of a pattern."""
    os.utime(path)
    found = sorted(path.parent.glob(pattern), key=lambda one: one.stat().st_mtime)
    for old in found[:-most]:
        old.unlink()
        _checksum_file(old).unlink(missing_ok=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
