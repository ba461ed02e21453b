"""Debian packages by name: installed where they are missing, or unpacked without installing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.cache import CACHE, locked


def ensure_installed(*names: str) -> None:
    """Install what is missing of the packages."""
    missing = [name for name in names if not _installed(name)]
    if missing:
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *missing)


def unpacked(name: str) -> Path:
    """Return a directory with the package's files as it would install them, from the cache."""
    directory = CACHE / "packages" / f"{name}-{_candidate(name)}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with locked(name):
        if not directory.is_dir():
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


def debian_mirror(suite: str) -> str:
    """Return the address of the Debian mirror that this machine uses."""
    shown = _output("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)")
    for line in shown.splitlines():
        site, _, release = line.partition(" ")
        if release == suite and "security" not in site:
            return site
    raise LookupError(f"apt has no source of {suite}")


def _installed(name: str) -> bool:
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", name],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout == "installed"


def _candidate(name: str) -> str:
    """Return the version that would be installed, after an update if apt knows none."""
    found = _known_candidate(name)
    if found is None:
        _apt("update")
        found = _known_candidate(name)
    if found is None:
        raise LookupError(f"no Debian package {name}")
    return found


def _known_candidate(name: str) -> str | None:
    for line in _output("apt-cache", "policy", name).splitlines():
        word, _, version = line.strip().partition(" ")
        if word == "Candidate:" and version != "(none)":
            return version
    return None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _apt(*arguments: str, directory: Path | None = None) -> None:
    options = ("--option", "APT::Sandbox::User=root", "--option", "DPkg::Lock::Timeout=600")
    command = ["apt-get", "--quiet", *options, *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # apt does not wait for another one that fetches its lists.
    with locked("apt"):
        subprocess.run(
            command, cwd=directory, env=environment, check=True, stdin=subprocess.DEVNULL
        )
