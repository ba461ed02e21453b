"""Writes the requirements of the image, with hashes, from setup.cfg and constraints.txt.

python -m scripts.requirements UV   UV is the command of uv

requirements.txt has the agent and the command with all that they need; requirements-build.txt has
the build backend and mypyc, with the types that it reads. `pip install --require-hashes` takes
both. uv resolves once for each architecture of the image. Both must give the same text: one file
serves both.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "3.11"
"""Of the image: Dockerfile."""
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
_HEAD = "# Written by `make constraints`: do not edit. For amd64 and arm64, Python {}.\n"


class PlatformsDifferError(Exception):
    """The architectures need different packages: one file cannot serve both."""


def compiled(uv: str, arguments: Sequence[str], platform: str, stdin: str = "") -> str:
    """Return the requirements that uv resolves. CalledProcessError, with reasons, if none do."""
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--python-version", PYTHON, "--python-platform", platform, *arguments]
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, capture_output=True, text=True, check=True
    )
    return done.stdout


def requirements(uv: str, arguments: Sequence[str], stdin: str = "") -> str:
    """Return the text of a requirements file that holds on all platforms of the image.

    Raises PlatformsDifferError if none does, and CalledProcessError as `compiled` does.
    """
    first, *others = (compiled(uv, arguments, platform, stdin) for platform in PLATFORMS)
    for platform, other in zip(PLATFORMS[1:], others, strict=True):
        if other != first:
            raise PlatformsDifferError(f"{platform} needs other packages than {PLATFORMS[0]}")
    return _HEAD.format(PYTHON) + first


def main(arguments: Sequence[str]) -> int:
    """Write both files; 1 with the reason on standard error if they cannot be resolved."""
    (uv,) = arguments
    extras = ("--extra", "agent", "--extra", "cli", "--constraint", "constraints.txt")
    try:
        runtime = requirements(uv, ["setup.cfg", *extras])
        pins = ["-", "--constraint", "constraints.txt"]
        backend = requirements(uv, pins, "setuptools>=77\nmypy>=2.4\ntypes-grpcio\n")
    except subprocess.CalledProcessError as error:
        print(error.stderr, file=sys.stderr)
        return 1
    except PlatformsDifferError as error:
        print(error, file=sys.stderr)
        return 1
    (ROOT / "requirements.txt").write_text(runtime, encoding="ascii")
    (ROOT / "requirements-build.txt").write_text(backend, encoding="ascii")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
