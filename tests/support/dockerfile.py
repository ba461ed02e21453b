"""The Dockerfile as its stages and their instructions. No engine is needed."""

from __future__ import annotations

import configparser
import re
import shlex
from dataclasses import dataclass, field

from tests.support.repository import ROOT


@dataclass
class Stage:
    """One FROM and what follows it, as (instruction, rest of its line)."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def every(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.every(instruction)[-1]

    def variables(self, instruction: str) -> dict[str, str]:
        """Return the variables that ENV, ARG or LABEL set."""
        pairs = [pair for rest in self.every(instruction) for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    def copies(self) -> list[tuple[list[str], str]]:
        """Sources and destination of each COPY out of the build context."""
        words = [shlex.split(rest) for rest in self.every("COPY")]
        return [(line[:-1], line[-1]) for line in words if not line[0].startswith("--from=")]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in joined.split("\n")
        if line.strip()
    ]


def stages() -> list[Stage]:
    found: list[Stage] = []
    for instruction, rest in instructions():
        if instruction == "FROM":
            base, name = re.split(r" AS ", rest)
            found.append(Stage(base, name))
        elif found:
            found[-1].instructions.append((instruction, rest))
    return found


def stage(name: str) -> Stage:
    (found,) = (each for each in stages() if each.name == name)
    return found


def version() -> str:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["metadata"]["version"]
