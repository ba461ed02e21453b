"""Memory, descriptors and the file systems of the agent run out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.faulty import asking, probe
from tests.support.lab import Lab, LabAgent
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-limits")]
HOLD = """
import socket, sys
held = []
for _ in range(int(sys.argv[1])):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect("/etc/netutil/net.sock")
    # The preface of HTTP/2 and empty settings: a connection that is not closed for idleness.
    held[-1].sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(3) + b"\\x04" + bytes(5))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        lab.pod("web").container("app")
        lab.pod("many").container("app")
        yield lab


@pytest.fixture
def running(lab: Lab) -> Iterator[None]:
    """Ends the agents that a test started."""
    yield
    for agent in lab.agents:
        if agent.running:
            agent.stop()


def own_cgroup(agent: LabAgent) -> Path:
    """The directory of the agent's memory cgroup."""
    for line in Path(f"/proc/{agent.pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path(f"/sys/fs/cgroup/memory{path}")
    pytest.skip("no memory controller of cgroup v1 here")


@pytest.mark.usefixtures("running")
def test_an_agent_near_its_memory_limit_rejects_new_connections(lab: Lab) -> None:
    agent = lab.agent("--memory-high-watermark-percent=90")
    web = lab.pods[0].containers[0]
    limit = own_cgroup(agent) / "memory.limit_in_bytes"
    assert metric(agent, "netutil_memory_limit_bytes") == 0
    with asking(web) as old, asking(web) as new:
        assert old.ask("pod")["said"] == "web"
        assert old.ask("watch")["said"] == "answered"
        used = metric(agent, "netutil_memory_bytes")
        assert used > 10 * 1024 * 1024
        limit.write_text(str(int(used * 1.05)))
        eventually(lambda: 0 < metric(agent, "netutil_memory_limit_bytes") < used * 1.1)
        answer = eventually(lambda: (a := new.ask("pod", fresh=True)).get("reason") and a)
        assert (answer["reason"], answer["code"]) == ("AGENT_MEMORY_LOW", "RESOURCE_EXHAUSTED")
        assert old.ask("pod")["said"] == "web"
        assert old.ask("watch")["reason"] == "AGENT_MEMORY_LOW"
        limit.write_text("-1")
        eventually(lambda: new.ask("pod", fresh=True).get("said") == "web")
    assert "new connections are rejected" in agent.stderr_text()
    assert "new connections are accepted again" in agent.stderr_text()
    assert probe(agent, "/healthz") == (200, "ok")


@pytest.mark.usefixtures("running")
def test_too_few_descriptors_are_an_error_of_new_connections(lab: Lab) -> None:
    command = ["prlimit", "--nofile=224:224", sys.executable, "-m", "netutil.agent"]
    agent = lab.agent("--max-connections-per-pod=500", command=command)
    affordable = int(metric(agent, "netutil_max_connections"))
    namespaces = 224 // 4 // 8  # at most a quarter, eight descriptors each
    assert affordable == (224 - 128 - namespaces * 8) // 3
    assert f"at most {affordable} connections" in agent.stderr_text()
    web, many = (pod.containers[0] for pod in lab.pods)
    with asking(web) as old, asking(web) as new:
        assert old.ask("pod")["said"] == "web"
        hold = [sys.executable, "-c", HOLD, str(affordable + 200)]
        holding = many.spawn(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert holding.stdout is not None
            assert holding.stdout.readline() == b"held\n"
            assert old.ask("pod")["said"] == "web"
            assert old.ask("cpu")["said"] == "answered"
            assert new.ask("pod", fresh=True).get("said") is None
            assert metric(agent, "netutil_accept_failures_total") == 0
        finally:
            holding.kill()
            holding.wait()
        eventually(lambda: new.ask("pod", fresh=True).get("said") == "web")
    assert "Traceback" not in agent.stderr_text()


@pytest.mark.usefixtures("running")
def test_a_client_waits_for_free_descriptors_and_is_answered(lab: Lab) -> None:
    agent, web = lab.agent(), lab.pods[0].containers[0]
    with asking(web) as old, asking(web) as new:
        assert old.ask("pod")["said"] == "web"
        _, hard = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (8, hard))
        assert new.ask("pod", fresh=True, seconds=2).get("said") is None
        assert old.ask("network_status")["said"] == "answered"
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (hard, hard))
        eventually(lambda: new.ask("pod", fresh=True).get("said") == "web")
    assert agent.running


@contextmanager
def small_file_system(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "faults", str(directory)]
    subprocess.run(mount, check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> None:
    """Use up the inodes."""
    number = 0
    while True:
        try:
            (directory / f"filler-{number}").touch()
        except OSError:
            return
        number += 1


def start(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netutil.agent", "--metrics-address=", *flags]
    command += ["--pod-source=file:/nonexistent.json", "--admin-socket="]
    return subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_an_agent_without_a_socket_fails_with_one_sentence(lab: Lab, state: str) -> None:
    with small_file_system(lab.directory / "small", "nr_inodes=16,size=64k") as small:
        path = small / "net.sock"
        if state == "full":
            fill(small)
        else:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(small)], check=True)
        done = start(f"--socket={path}")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("netutil-agent: ")]
    assert said.startswith("netutil-agent: cannot serve: ")
    assert "cannot create the socket: " in said
    assert str(path) in said
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("running")
def test_a_full_or_read_only_file_system_stops_no_agent(lab: Lab) -> None:
    with small_file_system(lab.directory / "filling", "nr_inodes=32,size=64k") as small:
        admin = small / "admin.sock"
        agent = lab.agent(f"--admin-socket={admin}", writable=[small])
        admin.unlink()
        fill(small)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(small)], check=True)
        eventually(lambda: "cannot be rebound" in agent.stderr_text())
        with asking(lab.pods[0].containers[0]) as web:
            assert web.ask("pod", fresh=True)["said"] == "web"
        assert probe(agent, "/healthz") == (200, "ok")
        subprocess.run(["mount", "-o", "remount,bind,rw", str(small)], check=True)
        for filler in small.glob("filler-*"):
            filler.unlink()
        eventually(admin.is_socket)
        assert agent.stop() == 0
