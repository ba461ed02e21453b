"""Run the tests of what the kernel decides in the virtual machine: `python -m tests.e2e.vm`.

Arguments go to pytest instead of the usual ones.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from tests.e2e.vm.machine import MachineFailed, run

ROOT = Path(__file__).parents[3]
ROOMS = ("identity", "facts", "lab", "door", "service")
WITHOUT = (
    "tests/service/test_soak.py",  # measures this machine, not an emulated one
    "tests/service/test_other_language.py",  # needs a package index
)
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-ra", "--no-cov", "-n2"),
    # An emulated processor is some ten times slower.
    *("-p", "no:cacheprovider", "--timeout", "600"),
)
TIMEOUT_SECONDS = 3000.0


def _usual() -> list[str]:
    return [*(f"tests/{room}" for room in ROOMS), *(f"--ignore={path}" for path in WITHOUT)]


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Boot, test, and return pytest's exit code."""
    signal.signal(signal.SIGTERM, _end)
    try:
        command = [*PYTEST, *(sys.argv[1:] or _usual())]
        return run(command, directory=ROOT, timeout_seconds=TIMEOUT_SECONDS)
    except MachineFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
