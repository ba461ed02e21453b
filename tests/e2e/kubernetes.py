"""Real commands of Kubernetes, built from Debian 12's own source package `kubernetes`.

They are kept in the cache with their checksums; KUBELET=/path takes another kubelet. A change of
the recipe below is another place in the cache, so that they are built again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.e2e.openapi import PACKAGE, generate
from tests.support.cache import CACHE, is_whole, keep
from tests.support.packages import debian_mirror, ensure_installed, unpacked

SOURCE = "kubernetes"
PACKAGES = ("golang-1.19-go", "dpkg-dev", "gcc", "libc6-dev")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
# modern-go/reflect2 1.0.1, which Kubernetes 1.20 vendors, calls reflect.mapiterinit as it was
# before Go 1.18 (modern-go/reflect2#24): json-iterator then ends the API server with SIGSEGV as it
# sorts the keys of a map, for each custom resource. 1.0.2 calls it as it is since; Kubernetes took
# 1.0.2 for the same reason (kubernetes/kubernetes#104947).
_REPLACED = {"github.com/modern-go/reflect2": "golang-github-modern-go-reflect2-dev"}
_REPLACEMENTS = "usr/share/gocode/src"
# Without the paths of the directory what is compiled once can be used again. "providerless", a tag
# of Kubernetes itself, leaves out the clients of AWS, Azure, Google and vSphere, which cost a third
# of the build, and their volumes, which no test has.
_FLAGS = ("-trimpath", "-tags=providerless", "-gcflags=all=-dwarf=false")
_GO = "/usr/lib/go-1.19/bin/go"
_SUITE = "bookworm"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# hack/lib/version.sh: what a command says of itself, and what the API server says at /version.
_VERSION_VARIABLES = tuple(
    f"{PACKAGE}/vendor/k8s.io/{library}/version.gitVersion"
    for library in ("component-base", "client-go/pkg")
)


def kubelet() -> Path:
    """Return the path of a kubelet: $KUBELET, the cached one, or one built now (minutes)."""
    return binaries(["kubelet"])["kubelet"]


def binaries(commands: Iterable[str]) -> dict[str, Path]:
    """Return the paths of commands, the kubelet's as `kubelet` does."""
    names, own = list(commands), os.environ.get("KUBELET")
    given = {"kubelet": Path(own)} if own else {}
    build(name for name in names if name not in given)
    return {name: given.get(name, _path(name)) for name in names}


def build(commands: Iterable[str]) -> None:
    """Build what the cache does not have of the commands, all from one unpacked source."""
    missing = [one for one in commands if not is_whole(_path(one))]
    if not missing:
        return
    ensure_installed(*PACKAGES)
    directory = CACHE / SOURCE
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=directory) as name:
        scratch = Path(name)
        archive, version = _downloaded(scratch)
        source = scratch / "go/src" / PACKAGE
        source.mkdir(parents=True)
        _run(["tar", "-x", "--strip-components=1", "-C", str(source), "-f", str(archive)], source)
        environment = {**os.environ, **_environment(scratch)}
        print(f"building {missing} {version}, a matter of minutes", file=sys.stderr)
        _replace_vendored(source)
        if "kube-apiserver" in missing:
            generate(source, _GO, environment)
        settings = " ".join(f"-X {name}=v{version}" for name in _VERSION_VARIABLES)
        flags = [*_FLAGS, "-ldflags", f"-s -w {settings}"]
        packages = [f"./cmd/{command}" for command in missing]
        go = ["nice", _GO, "build", *flags, "-o", f"{scratch}/", *packages]
        subprocess.run(go, cwd=source, env=environment, check=True)
        for command in missing:
            _path(command).parent.mkdir(exist_ok=True)
            keep(scratch / command, _path(command))


def _path(command: str) -> Path:
    return CACHE / SOURCE / _recipe() / command


def _recipe() -> str:
    """Return a name for how the commands are built, so far as it is chosen here."""
    chosen = repr((PACKAGES, sorted(_REPLACED.items()), _FLAGS, _VERSION_VARIABLES))
    return hashlib.sha256(chosen.encode()).hexdigest()[:12]


def _replace_vendored(source: Path) -> None:
    """Put libraries as Debian packages them in place of the copies in the source."""
    for library, package in _REPLACED.items():
        vendored = source / "vendor" / library
        shutil.rmtree(vendored)
        shutil.copytree(unpacked(package) / _REPLACEMENTS / library, vendored)


def _environment(scratch: Path) -> dict[str, str]:
    return {
        "GOPATH": str(scratch / "go"),
        "GOCACHE": str(CACHE / "go-build"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "1",
        "GOFLAGS": "-buildvcs=false",
        # The compiler collects its garbage rarely: memory is there, and two cores are the bound.
        "GOGC": "400",
    }


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True)


def _downloaded(directory: Path) -> tuple[Path, str]:
    """Return the upstream archive and its version. The machine's apt settings are left alone."""
    sources, lists = directory / "sources.list", directory / "lists"
    (lists / "partial").mkdir(parents=True)
    sources.write_text(
        f"deb-src [signed-by={_KEYRING}] {debian_mirror(_SUITE)} {_SUITE} main\n", encoding="utf-8"
    )
    options = (
        *("--option", f"Dir::Etc::SourceList={sources}", "--option", "Dir::Etc::SourceParts=-"),
        *("--option", f"Dir::State::Lists={lists}", "--option", "APT::Sandbox::User=root"),
    )
    _run(["apt-get", "--quiet", *options, "update"], directory)
    _run(["apt-get", "--quiet", *options, "source", "--download-only", SOURCE], directory)
    (archive,) = directory.glob(f"{SOURCE}_*.orig.tar.*")
    found = re.search(r"(?:\+really|_)([0-9]+(?:\.[0-9]+)+)\.orig", archive.name)
    if found is None:
        raise LookupError(f"no version in {archive.name}")
    return archive, found[1]
