"""Run real clients against the gRPC server: `make interop`.

Installs what they need from Debian, and builds them. Arguments go to pytest; `--prepare` alone only
installs and builds, for the tests that `make test` runs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.interop.programs import PACKAGES, PROGRAMS
from tests.support.packages import ensure_installed

PREPARE = "--prepare"


def main() -> int:
    """Return pytest's exit code."""
    ensure_installed(*PACKAGES)
    if shutil.which("npm") is None:
        ensure_installed("npm")  # not where Node.js comes with its own
    for build in PROGRAMS.values():
        build()
    if sys.argv[1:] == [PREPARE]:
        return 0
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], "tests/interop"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
