"""A real kubelet, built from Debian 12's own source package `kubernetes`.

The binary is kept in the cache with its checksum; KUBELET=/path takes another.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.packages import CACHE, ensure_installed

SOURCE = "kubernetes"
PACKAGES = ("golang-1.19-go", "dpkg-dev", "gcc", "libc6-dev")
_GO = "/usr/lib/go-1.19/bin/go"
_SUITE = "bookworm"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_VERSION_VARIABLE = "k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion"


def kubelet() -> Path:
    """Return the path of a kubelet: $KUBELET, the cached one, or one built now (minutes)."""
    given = os.environ.get("KUBELET")
    if given:
        return Path(given)
    return built("kubelet")


def built(command: str) -> Path:
    """Return a command of the source package, from the cache if its checksum holds."""
    binary = CACHE / "kubernetes" / command
    if not _is_whole(binary):
        binary.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".build-", dir=binary.parent) as name:
            fresh = _build(command, Path(name))
            _checksum_file(binary).write_text(_checksum(fresh), encoding="ascii")
            fresh.replace(binary)
    return binary


def _is_whole(binary: Path) -> bool:
    try:
        return _checksum_file(binary).read_text(encoding="ascii") == _checksum(binary)
    except FileNotFoundError:
        return False


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_file(binary: Path) -> Path:
    return binary.with_name(f"{binary.name}.sha256")


def _build(command: str, directory: Path) -> Path:
    ensure_installed(*PACKAGES)
    archive, version = _downloaded(directory)
    source = directory / "go/src/k8s.io/kubernetes"
    source.mkdir(parents=True)
    subprocess.run(
        ["tar", "--extract", "--strip-components=1", "--directory", source, "--file", archive],
        check=True,
    )
    print(f"building {command} {version} (some four minutes on two cores)", file=sys.stderr)
    environment = {
        **os.environ,
        "GOPATH": str(directory / "go"),
        "GOCACHE": str(CACHE / "go-build"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "1",
        "GOFLAGS": "-buildvcs=false",
    }
    target = directory / command
    subprocess.run(
        [
            *("nice", _GO, "build", "-o", target, "-ldflags"),
            *(f"-s -w -X {_VERSION_VARIABLE}=v{version}", f"./cmd/{command}"),
        ],
        cwd=source,
        env=environment,
        check=True,
    )
    return target


def _downloaded(directory: Path) -> tuple[Path, str]:
    """Return the upstream archive and its version. The machine's apt settings are left alone."""
    sources, lists = directory / "sources.list", directory / "lists"
    (lists / "partial").mkdir(parents=True)
    sources.write_text(
        f"deb-src [signed-by={_KEYRING}] {_mirror()} {_SUITE} main\n", encoding="utf-8"
    )
    options = (
        *("--option", f"Dir::Etc::SourceList={sources}", "--option", "Dir::Etc::SourceParts=-"),
        *("--option", f"Dir::State::Lists={lists}", "--option", "APT::Sandbox::User=root"),
    )
    subprocess.run(["apt-get", "--quiet", *options, "update"], check=True)
    subprocess.run(
        ["apt-get", "--quiet", *options, "source", "--download-only", SOURCE],
        cwd=directory,
        check=True,
    )
    (archive,) = directory.glob(f"{SOURCE}_*.orig.tar.*")
    found = re.search(r"(?:\+really|_)([0-9]+(?:\.[0-9]+)+)\.orig", archive.name)
    if found is None:
        raise LookupError(f"no version in {archive.name}")
    return archive, found[1]


def _mirror() -> str:
    """Return the address of the Debian mirror that this machine uses."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in shown.splitlines():
        site, _, release = line.partition(" ")
        if release == _SUITE and "security" not in site:
            return site
    raise LookupError(f"apt has no source of {_SUITE}")


if __name__ == "__main__":
    print(kubelet())
