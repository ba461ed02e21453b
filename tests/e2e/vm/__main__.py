"""Run tests in the virtual machine: `python -m tests.e2e.vm [kernel|node] [pytest arguments]`.

`kernel`: the tests of what the kernel decides. `node`: the suite of `make e2e`, on a node
with cgroup v2 and the systemd driver. Neither word: both.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from tests.e2e import __main__ as e2e
from tests.e2e.vm.disk import containerd_disk
from tests.e2e.vm.machine import KEPT, MachineFailed, run
from tests.support.repository import ROOT

FOLDERS = (
    "unit/identity",
    "unit/facts",
    "unit/collect",
    "unit/listener",
    "unit/connections",
    "unit/grpcserver",
    "unit/admin",
    *(f"integration/{each}" for each in ("admin", "api", "cli", "lab", "lifecycle", "watch")),
    "security",
    "faults",
)
WITHOUT = "tests/integration/api/test_other_language.py"  # needs a package index
PYTEST = (
    *(sys.executable, "-m", "pytest", "-q", "-ra", "-n2"),
    # An emulated processor is some ten times slower.
    *("-p", "no:cacheprovider", "--timeout", "600"),
)
SLOWNESS = "10"
# With more, Go's idle threads look for work all the time; the kubelet's heap is small.
_CALM_GO = {"GOMAXPROCS": "1", "GOGC": "400"}
TIMEOUT_SECONDS = 3000.0
NODE_TIMEOUT_SECONDS = 7200.0


def kernel(arguments: list[str]) -> int:
    """Run the tests of what the kernel decides."""
    usual = [*(f"tests/{folder}" for folder in FOLDERS), "-m", "not alone", f"--ignore={WITHOUT}"]
    command = [*PYTEST, *(arguments or usual)]
    return run(command, directory=ROOT, timeout_seconds=TIMEOUT_SECONDS)


def node(arguments: list[str]) -> int:
    """Run the end-to-end tests on a node that is this machine."""
    environment = {**e2e.prepared(), **_CALM_GO}
    environment |= {"NETUTIL_NODE": "/", "NETUTIL_SLOWNESS": SLOWNESS, "NETUTIL_IMAGES_THERE": "1"}
    record = os.environ.get("NETUTIL_RECORD")
    if record:
        environment["NETUTIL_RECORD"] = KEPT
    return run(
        e2e.node_tests("--timeout", "3000", *arguments),
        directory=ROOT,
        timeout_seconds=NODE_TIMEOUT_SECONDS,
        environment=environment,
        keep=Path(record) if record else None,
        containerd=containerd_disk(Path(environment["NETUTIL_AGENT_IMAGE"])),
    )


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Boot, test, and return pytest's exit code, the first that is not 0."""
    signal.signal(signal.SIGTERM, _end)
    parts = {"kernel": kernel, "node": node}
    first, rest = sys.argv[1:2], sys.argv[2:]
    try:
        if first and first[0] in parts:
            return parts[first[0]](rest)
        return kernel([]) or node([])
    except MachineFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
