"""Debian packages by name: installed where they are missing, or unpacked without installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "netutil"


def ensure_installed(*names: str) -> None:
    """Install what is missing of the packages."""
    missing = [name for name in names if not _installed(name)]
    if missing:
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *missing)


def unpacked(name: str) -> Path:
    """Return a directory with the package's files as it would install them, from the cache."""
    directory = CACHE / "packages" / f"{name}-{_candidate(name)}"
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".fresh-", dir=directory.parent))
    try:
        _apt("download", name, directory=fresh)
        (archive,) = fresh.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", archive, fresh / "files"], check=True)
        (fresh / "files").rename(directory)
    finally:
        shutil.rmtree(fresh)
    return directory


def dependency(name: str, prefix: str) -> str:
    """Return the package that `name` depends on and that begins with `prefix`."""
    shown = _output("apt-cache", "depends", name)
    found = [line.split()[-1] for line in shown.splitlines() if "Depends:" in line]
    return next(one for one in found if one.startswith(prefix))


def _installed(name: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout == "installed"


def _candidate(name: str) -> str:
    for line in _output("apt-cache", "policy", name).splitlines():
        if line.strip().startswith("Candidate:"):
            return line.split()[-1]
    raise LookupError(f"no Debian package {name}: run apt-get update")


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _apt(*arguments: str, directory: Path | None = None) -> None:
    command = ["apt-get", "--quiet", "--option", "APT::Sandbox::User=root", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, cwd=directory, env=environment, check=True, stdin=subprocess.DEVNULL)
