"""The programs of client/examples/ in a pod, built and started as their heads say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import golang
from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.programs import needs
from tests.support.repository import ROOT

PACKAGES = ("gcc", "libc6-dev", "jq", *golang.PACKAGES)
"""Debian's, for what is tried here."""
EXAMPLES = ROOT / "client" / "examples"
pytestmark = [pytest.mark.root, needs_lab]


@pytest.fixture
def app() -> Iterator[LabContainer]:
    with Lab() as lab:
        yield asked_by_examples(lab)


def asked_by_examples(lab: Lab) -> LabContainer:
    """Return a container of a pod with two interfaces, beside an agent."""
    status = [{"name": "n", "interface": name, "ips": ["192.0.2.7"]} for name in ("eth0", "net1")]
    pod = lab.pod("upf", namespace="telco", annotations={NETWORK_STATUS: json.dumps(status)})
    container = pod.container("app", cpus="0-1")
    lab.write_pod_list(lab.directory / "pods.json")
    lab.agent()
    return container


def output(app: LabContainer, *command: str) -> str:
    command_of_this_tree = f"{sys.executable} -m netutil.client"
    environment = {"PATH": os.environ["PATH"], "NETUTIL": command_of_this_tree}
    done = app.run(command, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_python_pins_a_worker_to_each_cpu(app: LabContainer) -> None:
    printed = output(app, sys.executable, str(EXAMPLES / "python" / "pinned.py"))
    assert printed == "worker on CPU 0\nworker on CPU 1\n"


def test_shell_starts_a_program_with_the_facts(app: LabContainer) -> None:
    needs("jq")
    script = 'echo "$FACTS_POD $FACTS_CPUS $FACTS_INTERFACES"'
    with_facts = str(EXAMPLES / "shell" / "with-facts.sh")
    assert output(app, with_facts, "sh", "-c", script) == "telco/upf 0-1 eth0,net1\n"


def test_shell_starts_nothing_when_the_agent_does_not_answer(app: LabContainer) -> None:
    needs("jq")
    environment = {
        "PATH": os.environ["PATH"],
        "NETUTIL": f"{sys.executable} -m netutil.client --socket /nowhere",
    }
    with_facts = str(EXAMPLES / "shell" / "with-facts.sh")
    done = app.run([with_facts, "echo", "started"], env=environment)
    assert done.returncode == 5  # unavailable, as netutil says it
    assert done.stdout == b""


def test_the_shell_gives_facts_to_the_c_program(app: LabContainer, tmp_path: Path) -> None:
    needs("cc", "jq")
    source, program = EXAMPLES / "c" / "pinned.c", tmp_path / "pinned"
    subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    printed = output(app, str(EXAMPLES / "shell" / "with-facts.sh"), str(program))
    assert printed == "pod telco/upf interfaces eth0,net1 on CPU 0 of 0-1\n"


def test_go_with_debians_grpc(app: LabContainer, tmp_path: Path) -> None:
    needs("go", path=golang.BINARIES)
    sources = tmp_path / "src" / "example.org" / "facts"
    shutil.copytree(EXAMPLES / "go", sources)
    subprocess.run(
        ["go", "build", "-o", tmp_path / "facts", "-tags", "grpc_before_1_63", "."],
        cwd=sources,
        check=True,
        env=golang.environment(tmp_path),
    )
    assert output(app, str(tmp_path / "facts")) == (
        "pod telco/upf container app\n"
        "cpus 0-1\n"
        "interface eth0 [192.0.2.7]\n"
        "interface net1 [192.0.2.7]\n"
        "NOT_SET: VARIABLE_NOT_SET: The process has no environment variable 'NOT_SET'.\n"
    )
