"""Virtual environments with the wheel of this tree, made by pip from the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.repository import ROOT

CONSTRAINTS = ("--constraint", str(ROOT / "constraints.txt"))


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment."""

    directory: Path

    @classmethod
    def create(cls, directory: Path) -> Environment:
        """Return a new one, with nothing but pip and what this Python bundles."""
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        return cls(directory)

    def install(self, *arguments: str) -> None:
        command = ["pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
        done = self.run(*command)
        assert done.returncode == 0, done.stderr

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, where no module of this tree is found."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")
        }
        return subprocess.run(
            [str(self.directory / "bin" / command), *arguments],
            cwd="/",
            env=environment | {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def output(self, command: str, *arguments: str) -> str:
        done = self.run(command, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def distributions(self) -> dict[str, str]:
        """The installed distributions with their versions, without those of a new environment."""
        lines = self.output("pip", "list", "--format", "freeze", "--disable-pip-version-check")
        found = dict(line.split("==") for line in lines.splitlines())
        return {name: pin for name, pin in found.items() if name not in ("pip", "setuptools")}
