"""Writes a software bill of materials of the image's Python packages, for each architecture.

python -m scripts.sbom CYCLONEDX_PY DIRECTORY   CYCLONEDX_PY is the command of cyclonedx-bom

Installs requirements.txt as the Dockerfile does, with hashes, for each architecture into an
environment of its own, and this tree as the package kube-netutil. Nothing in it is run.
The base image has its own packages: `docker buildx build --sbom=true` lists all of the image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.requirements import PYTHON

ROOT = Path(__file__).parents[1]
MACHINES: Mapping[str, str] = {"amd64": "x86_64", "arm64": "aarch64"}
"""The machine in the tags of wheels, by the architecture of an image."""
_TAGS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


def kept(requirements: str, dockerfile: str) -> str:
    """Return the requirements without those that the Dockerfile uninstalls from its environment."""
    lines = dockerfile.replace("\\\n", " ")
    found = re.findall(r'"\$VENV/bin/pip" uninstall --quiet --yes ([a-z0-9 -]+)', lines)
    removed = {name for names in found for name in names.split()}
    entries = re.split(r"^(?=[A-Za-z0-9])", requirements, flags=re.MULTILINE)
    return "".join(one for one in entries if one.partition("==")[0] not in removed)


def install(machine: str, environment: Path) -> None:
    """Make an environment with the packages of the image. CalledProcessError if pip fails."""
    venv.create(environment, clear=True, with_pip=False)
    (target,) = environment.glob("lib/python3*/site-packages")
    requirements = environment / "requirements.txt"
    requirements.write_text(
        kept((ROOT / "requirements.txt").read_text(), (ROOT / "Dockerfile").read_text())
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    platforms = [f"--platform={tag}_{machine}" for tag in _TAGS]
    subprocess.run(
        [
            *pip,
            *("--no-deps", "--only-binary", ":all:", "--require-hashes"),
            *("--python-version", PYTHON, "--implementation", "cp"),
            *platforms,
            *("--target", str(target), "--requirement", str(requirements)),
        ],
        check=True,
    )
    subprocess.run([*pip, "--no-deps", "--target", str(target), str(ROOT)], check=True)


def main(arguments: Sequence[str]) -> int:
    """Write `kube-netutil-ARCHITECTURE.cdx.json` for each architecture. CalledProcessError."""
    cyclonedx_py, directory = arguments[0], Path(arguments[1])
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for architecture, machine in MACHINES.items():
        environment = directory / architecture
        install(machine, environment)
        output = directory / f"kube-netutil-{architecture}.cdx.json"
        subprocess.run(
            [
                *(cyclonedx_py, "environment", str(environment), "--output-reproducible"),
                *("--output-format", "JSON", "--output-file", str(output)),
            ],
            check=True,
        )
        shutil.rmtree(environment)
        print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
