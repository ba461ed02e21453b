"""The agent's image, made by the Dockerfile's own steps without an engine.

The Dockerfile's bases, python and python:slim, are on a registry; they are replaced by root file
systems of Debian's packages with what the Dockerfile expects of them: `python` and pip in
/usr/local, and in the first, of which nothing else is shipped, a C compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from tests.e2e.images import archive
from tests.support.cache import keep_newest, kept
from tests.support.dockerfile import Stage, stages
from tests.support.packages import debian_mirror, ensure_installed
from tests.support.repository import ROOT

AGENT_IMAGE = "ghcr.io/example/netutil:0.1.0"  # the manifests' own
PACKAGES = ("mmdebstrap", "arch-test")
_SUITE = "bookworm"
_CONTENT = {
    "${PYTHON_BUILD_IMAGE}": ("python3", "python3-venv", "gcc", "python3-dev"),
    "${PYTHON_IMAGE}": ("python3", "python3-venv"),
}
_UNUSED = ("doc", "man", "locale", "info")
_MAX_KEPT = 3
_SHARED_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")


def agent_image() -> Path:
    """Return the archive of the image of this tree; one made before if nothing of it changed."""
    key = _key([ROOT / "tests/e2e/agent_image.py"])
    bases = {
        base: kept(f"images/base-{key}-{number}.tar", partial(_make_base, content=content))
        for number, (base, content) in enumerate(_CONTENT.items())
    }
    sources = [ROOT / "Dockerfile", *(ROOT / name for name in _copied()), *bases.values()]
    path = kept(f"images/agent-{_key(sources)}.tar", lambda fresh: _make(fresh, bases))
    keep_newest(path, "agent-*.tar", _MAX_KEPT)
    return path


def _copied() -> list[str]:
    return [name for stage in stages() for names, _ in stage.copies() for name in names]


def _key(paths: Iterable[Path]) -> str:
    """A name for the content of files and directories."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _make_base(target: Path, content: tuple[str, ...]) -> None:
    ensure_installed(*PACKAGES)
    with tempfile.TemporaryDirectory(prefix="netutil-base-", dir=target.parent) as name:
        root = Path(name, "root")
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(content)}"),
                *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNUSED),
                *(_SUITE, str(root), debian_mirror(_SUITE)),
            ],
            check=True,
        )
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        # Debian keeps pip out of its own Python; in python:slim it is there to be removed.
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        (wheel,) = root.glob("usr/share/python-wheels/pip-*.whl")
        (version,) = (path.name for path in root.glob("usr/lib/python3.*"))
        with zipfile.ZipFile(wheel) as pip:
            pip.extractall(root / f"usr/local/lib/{version}/dist-packages")
        _pack(root, target)


def _make(target: Path, bases: Mapping[str, Path]) -> None:
    """Run the Dockerfile: each stage in a copy of its base."""
    with tempfile.TemporaryDirectory(prefix="netutil-image-", dir=target.parent) as name:
        roots: dict[str, Path] = {}
        for stage in stages():
            roots[stage.name] = root = Path(name, stage.name)
            root.mkdir()
            _unpack(bases[stage.base], root)
            _run_stage(stage, root, roots)
        shipped = stages()[-1]
        packed = Path(name, "layer.tar")
        _pack(roots[shipped.name], packed)
        environment = [f"{key}={value}" for key, value in _variables(shipped).items()]
        entrypoint = ["netutil-agent"]
        target.write_bytes(archive(AGENT_IMAGE, packed.read_bytes(), entrypoint, environment))


def _variables(stage: Stage) -> dict[str, str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    found = stage.variables("ENV")
    return {"PATH": path, **{key: value.replace("$PATH", path) for key, value in found.items()}}


def _run_stage(stage: Stage, root: Path, roots: dict[str, Path]) -> None:
    directory = "/"
    for instruction, rest in stage.instructions:
        if instruction == "WORKDIR":
            directory = rest
            (root / directory.lstrip("/")).mkdir(parents=True)
        elif instruction == "COPY":
            _copy(rest, root, directory, roots)
        elif instruction == "RUN":
            _execute(rest, stage, root, directory)


def _copy(rest: str, root: Path, directory: str, roots: dict[str, Path]) -> None:
    words = shlex.split(rest)
    origin = re.fullmatch(r"--from=(\w+)", words[0])
    sources, destination = words[bool(origin) : -1], words[-1]
    above = roots[origin[1]] if origin else ROOT
    inside = Path("/", directory, destination)
    target = root / inside.relative_to("/")
    for source in sources:
        found = above / source.lstrip("/")
        if found.is_dir():
            # .dockerignore keeps them out of the build context, not out of a stage.
            ignored = None if origin else shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, target, symlinks=True, ignore=ignored)
        else:
            shutil.copy(found, target)


def _execute(command: str, stage: Stage, root: Path, directory: str) -> None:
    """Run a command in the root as an engine does, with this machine's way to a package index."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")
    }
    inherited.pop("PIP_FIND_LINKS", None)  # a directory of this machine
    shared = [path for path in (*_SHARED_FILES, os.environ.get("PIP_CERT", "")) if path]
    script = "".join(
        f"mkdir -p {root}{Path(path).parent} && touch {root}{path} && "
        f"mount --bind {path} {root}{path}\n"
        for path in dict.fromkeys(shared)
        if Path(path).is_file()
    )
    script += f"mount --bind /dev {root}/dev\nmount --bind /proc {root}/proc\n"
    script += f"exec chroot {root} /bin/sh -ec {shlex.quote(f'cd {directory}; {command}')}\n"
    subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        env={**inherited, "HOME": "/root", **stage.variables("ARG"), **_variables(stage)},
        check=True,
    )


def _unpack(archived: Path, root: Path) -> None:
    subprocess.run(["tar", "-x", "-C", str(root), "-f", str(archived)], check=True)


def _pack(root: Path, target: Path) -> None:
    excluded = [f"--exclude=./{path}/*" for path in ("dev", "proc", "var/cache/apt")]
    subprocess.run(
        ["tar", "-c", "--numeric-owner", *excluded, "-C", str(root), "-f", str(target), "."],
        check=True,
    )
