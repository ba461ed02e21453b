"""On what, and with what, it was measured."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
from netutil.agent.observability.build_info import read_build_info

_PACKAGES = ("grpcio", "protobuf", "msgspec")


def description() -> dict[str, str]:
    """Return the machine, the versions, the commit, the time and the load at the start."""
    cpu = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().split("\n")
        if line.startswith(("model name", "CPU implementer"))
    )
    memory = psutil.virtual_memory().total // 2**30
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return {
        "machine": f"{psutil.cpu_count()} CPUs ({cpu}), {memory} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, {packages}",
        "gRPC server": read_build_info().server,
        "commit": commit or "unknown",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "load at the start": f"{psutil.getloadavg()[0]:.1f}",
    }
