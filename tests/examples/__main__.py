"""Run the examples of client/examples/, the completion of shells, and EAL: `make examples`.

Installs what they need from Debian. Arguments go to pytest.
"""

from __future__ import annotations

import subprocess
import sys

from tests.examples import test_dpdk_eal, test_examples
from tests.support.packages import ensure_installed
from tests.support.programs import SHELLS

PATHS = ("tests/examples", "tests/unit/client/test_completion.py")


def main() -> int:
    """Return pytest's exit code."""
    ensure_installed(*test_examples.PACKAGES, *SHELLS, *test_dpdk_eal.PACKAGES)
    # A process of its own: pytest rewrites what is not imported yet.
    command = [sys.executable, "-m", "pytest", "-n", "0", "-v", *sys.argv[1:], *PATHS]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
