"""The agent, started as a manifest says: arguments, environment, mounts and capabilities."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manifests.deployment import LabNode, lab_node
from tests.support.lab import LabAgent, why_no_lab
from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    Manifest,
    agent_of,
    read,
)
from tests.support.manifests.privileges import hardened_capabilities, mask
from tests.support.nodes.agent_node import netutil

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("deployed")]

# What has capabilities that the agent has not got may be read by its equals, and the agent cannot
# ask as one.
REFUSED = "root: environment of another process"
USER_OWN = "user: own environment"
USER_OTHER = "user: environment of another process"
# They read the environment that the container was started with, with the caller's ids.
USERS_INTERFACES = ("user: interfaces", "hidden user: interfaces")
NEEDED_BY = {
    "SYS_PTRACE": {
        *(USER_OWN, USER_OTHER, "user: CPUs of another process"),
        *("hidden user: own environment", "hidden user: environment of another process"),
        "hidden user: CPUs of another process",
        *("root: own environment", "root: CPUs of another process"),
        # They read the environment, for PCIDEVICE_*.
        *("user: interfaces", "hidden user: interfaces", "root: interfaces"),
        # A root without capabilities needs none: the agent is its like, and has more of them.
    },
    # Another process's environment is read with its owner's own ids.
    "DAC_READ_SEARCH": {USER_OWN, "user: interfaces"},
    "SETUID": {USER_OTHER, "hidden user: environment of another process", *USERS_INTERFACES},
    "SETGID": {USER_OTHER, "hidden user: environment of another process", *USERS_INTERFACES},
}


@pytest.fixture(scope="module")
def node() -> Iterator[LabNode]:
    missing = why_no_lab()
    if missing:
        pytest.skip(missing)
    with lab_node() as made:
        yield made


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except urllib.error.URLError:
        return 0


def succeeds(probe: Manifest, node: LabNode, port: int) -> bool:
    """Probe as the kubelet does, until it succeeds or would be given up."""
    url = f"http://{node.node['status.podIP']}:{port}{probe['httpGet']['path']}"
    deadline = time.monotonic() + 60
    while status(url) != 200:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def status_of(agent: LabAgent, field: str) -> str:
    """A field of /proc/<pid>/status."""
    text = Path(f"/proc/{agent.pid}/status").read_text(encoding="utf-8")
    return text.partition(f"\n{field}:\t")[2].partition("\n")[0]


def effective_capabilities(agent: LabAgent) -> int:
    return int(status_of(agent, "CapEff"), 16)


@pytest.fixture(scope="module", params=[DEFAULT, HARDENED], ids=["default", "hardened"])
def container(node: LabNode, request: pytest.FixtureRequest) -> Manifest:
    """The container of a variant whose agent runs now."""
    objects = read(request.param)
    node.deploy(objects)
    return agent_of(objects)


def test_it_passes_its_own_probes(node: LabNode, container: Manifest) -> None:
    (port,) = container["ports"]
    for kind in ("startup", "liveness", "readiness"):
        probe = container[f"{kind}Probe"]
        assert probe["httpGet"]["port"] == port["name"]
        assert succeeds(probe, node, port["containerPort"]), kind


@pytest.mark.usefixtures("container")
def test_it_finds_its_callers_below_the_hosts_sys(node: LabNode) -> None:
    assert netutil(node.user, "whoami", uid=0, gid=0)["name"] == "of-a-user"
    assert netutil(node.root, "whoami")["name"] == "of-root"
    expected = str(min(os.sched_getaffinity(0)))
    assert netutil(node.root, "cpu")["effective_cpus"] == expected


@pytest.mark.usefixtures("container")
def test_it_answers_the_operator_in_its_container(node: LabNode) -> None:
    done = node.exec([sys.executable, "-m", "netutil.client", "node", "pods", "-o", "json"])
    assert done.returncode == 0, done.stderr
    assert {pod["name"] for pod in json.loads(done.stdout)["pods"]} == {
        "of-a-user",
        "of-root",
        "of-bare-root",
    }


@pytest.mark.usefixtures("container")
def test_it_says_that_it_is_well(node: LabNode) -> None:
    done = node.exec([sys.executable, "-m", "netutil.agent", "--check"])
    assert done.returncode == 0, done.stderr


def test_the_default_one_answers_every_question(node: LabNode) -> None:
    node.deploy(read(DEFAULT))
    assert node.failed() == set()


def test_the_hardened_agent_answers_all_but_the_documented(
    node: LabNode,
) -> None:
    agent = node.deploy(read(HARDENED))
    assert effective_capabilities(agent) == mask(hardened_capabilities())
    assert node.failed() == {REFUSED}


def test_the_hardened_agent_has_its_seccomp_profile(
    node: LabNode,
) -> None:
    agent = node.deploy(read(HARDENED))
    assert status_of(agent, "Seccomp") == "2"  # SECCOMP_MODE_FILTER
    assert status_of(agent, "NoNewPrivs") == "1"
    assert int(status_of(agent, "CapBnd"), 16) == mask(hardened_capabilities())


def test_each_capability_is_tried() -> None:
    assert set(NEEDED_BY) == hardened_capabilities()


@pytest.mark.parametrize("missing", NEEDED_BY)
def test_the_hardened_one_fails_without(node: LabNode, missing: str) -> None:
    objects = copy.deepcopy(read(HARDENED))
    added = agent_of(objects)["securityContext"]["capabilities"]["add"]
    added.remove(missing)
    agent = node.deploy(objects)
    assert effective_capabilities(agent) == mask(added)
    assert node.failed() - {REFUSED} == NEEDED_BY[missing]


def test_the_hardened_agent_cannot_write_to_image_or_cgroups(
    node: LabNode,
) -> None:
    agent = node.deploy(read(HARDENED))
    lines = Path(f"/proc/{agent.pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    options = {line.split()[4]: line.split()[5].split(",")[0] for line in lines}
    below_sys = {path: mode for path, mode in options.items() if path.startswith("/host/sys")}
    assert len(below_sys) > 1  # the cgroups are mounts of their own
    assert set(below_sys.values()) == {"ro"}
    assert options["/"] == "ro"
