"""Files, mounts and daemons of a node."""

from __future__ import annotations

import subprocess
from pathlib import Path


def unmount_below(top: Path) -> None:
    """Unmount whatever is mounted below a directory, the last first."""
    lines = Path("/proc/self/mountinfo").read_text().split("\n")
    points = [line.split()[4] for line in lines if line]
    for point in reversed([one for one in points if one.startswith(f"{top}/")]):
        subprocess.run(["umount", "--lazy", point], check=True)


def write(path: Path, text: str) -> None:
    """Write a file, with the directories above it."""
    Path(made(path)).write_text(text, encoding="utf-8")


def made(path: Path) -> str:
    """Return the path as text, with the directories above it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def daemon(log: Path, *command: str, directory: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command that writes to a log, in a session of its own."""
    with Path(made(log)).open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
