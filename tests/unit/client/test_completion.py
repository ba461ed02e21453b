"""A shell that reads what `netutil completion` prints completes the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fakes.agent import FakeAgent

BIN = Path(sys.executable).parent


def code(shell: str, directory: Path) -> Path:
    done = subprocess.run(
        [BIN / "netutil", "completion", shell], capture_output=True, text=True, check=True
    )
    path = directory / shell
    path.write_text(done.stdout, encoding="utf-8")
    return path


def output_of(shell: str, script: str, directory: Path, **more: str) -> list[str]:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}; make examples installs it")
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(directory), "TERM": "dumb"}
    environment |= more
    done = subprocess.run(
        [program, *options, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def in_bash(line: str, directory: Path, **more: str) -> list[str]:
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = f"""
        source {code("bash", directory)}
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_TYPE=9 COMP_WORDS=({words})
        COMP_CWORD={len(line.split(" ")) - 1}
        _python_argcomplete netutil
        echo "${{COMPREPLY[@]}}"
    """
    return output_of("bash", script, directory, **more)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("netutil netw", {"network"}),
        ("netutil node ex", {"explain"}),
        ("netutil node describe --sort e", {"errors"}),
        ("netutil whoami -o y", {"yaml"}),
        ("netutil cpu --topo", {"--topology"}),
        ("netutil completion z", {"zsh"}),
        ("netutil nosuch", set()),
    ],
)
def test_bash_completes(line: str, offered: set[str], tmp_path: Path) -> None:
    assert set(in_bash(line, tmp_path)) == offered


def test_fish_completes(tmp_path: Path) -> None:
    script = f"source {code('fish', tmp_path)}; complete --do-complete 'netutil netw'"
    offered = output_of("fish", script, tmp_path)
    assert offered[:3] == ["network", "the", "pod's"]  # with what its help says


def test_zsh_finds_the_completing_program(tmp_path: Path) -> None:
    script = f"autoload -U compinit; compinit -D; source {code('zsh', tmp_path)}"
    completer = output_of("zsh", f"{script}; print $_comps[netutil]", tmp_path)
    assert completer == ["_python_argcomplete"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("netutil node pod d", {"default/web-0"}),
        ("netutil node trace --pod kube", {"kube-system/dns"}),
    ],
)
def test_bash_completes_the_names_of_pods(
    line: str, offered: set[str], tmp_path: Path, agent: FakeAgent
) -> None:
    assert set(in_bash(line, tmp_path, NETUTIL_ADMIN_SOCKET=agent.path)) == offered


def test_bash_offers_no_pods_where_no_agent_answers(tmp_path: Path, directory: str) -> None:
    missing = f"{directory}/none.sock"
    assert in_bash("netutil node pod d", tmp_path, NETUTIL_ADMIN_SOCKET=missing) == []
