"""The socket's file, or its directory, is taken away from a running agent or replaced."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.faulty import asking, probe
from tests.support.lab import Lab, LabAgent
from tests.support.lab.confined import CONFINED
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-socket")]
REBINDS = "netutil_socket_rebinds_total"
LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1] + ".new")
listener.listen(8)
import os
os.rename(sys.argv[1] + ".new", sys.argv[1])
print("listening", flush=True)
while True:
    listener.accept()
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def agent(lab: Lab) -> LabAgent:
    return lab.agent()


def inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return path.is_socket() and probe.connect_ex(str(path)) == 0


def file_deleted(path: Path) -> None:
    path.unlink()


def directory_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


def directory_renamed(path: Path) -> None:
    path.parent.rename(path.parent.with_name(f"{path.parent.name}-{inode(path)}"))


def directory_recreated(path: Path) -> None:
    directory_renamed(path)
    path.parent.mkdir()


def file_in_its_place(path: Path) -> None:
    path.unlink()
    path.write_text("not a socket")


def directory_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def directories_in_its_place(path: Path) -> None:
    """Make the directories that the kubelet makes for a pod's subPath."""
    path.unlink()
    (path / "x" / "below").mkdir(parents=True)


def directory_with_a_file_in_its_place(path: Path) -> None:
    directories_in_its_place(path)
    (path / "x" / "data").write_text("data")


def link_in_its_place(path: Path) -> None:
    target = path.with_name("planted")
    target.write_text("not the agent's")
    path.unlink()
    path.symlink_to(target)


def fifo_in_its_place(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dead_socket_in_its_place(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()


def mode_taken_away(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize(
    "fault",
    [
        file_deleted,
        file_in_its_place,
        directory_in_its_place,
        directories_in_its_place,
        directory_with_a_file_in_its_place,
        link_in_its_place,
        fifo_in_its_place,
        dead_socket_in_its_place,
        mode_taken_away,
    ],
)
def test_a_socket_that_is_removed_or_replaced_is_rebound(
    agent: LabAgent, fault: Callable[[Path], None]
) -> None:
    ensure_that_it_is_rebound(agent, fault)


@pytest.mark.skipif(CONFINED, reason="the directory is a mount of the agent's own container then")
@pytest.mark.parametrize("fault", [directory_deleted, directory_renamed, directory_recreated])
def test_a_socket_whose_directory_is_removed_is_rebound(
    another_lab: Lab, fault: Callable[[Path], None]
) -> None:
    ensure_that_it_is_rebound(another_lab.agent(), fault)


def ensure_that_it_is_rebound(agent: LabAgent, fault: Callable[[Path], None]) -> None:
    paths = (agent.socket, agent.admin_socket)
    eventually(lambda: all(map(connects, paths)))
    before, modes = metric(agent, REBINDS), [path.lstat().st_mode for path in paths]
    for path in paths:
        fault(path)
    eventually(lambda: metric(agent, REBINDS) == before + len(paths))
    assert all(map(connects, paths))
    assert [path.lstat().st_mode for path in paths] == modes
    assert agent.running
    assert "; rebound" in agent.stderr_text()
    assert probe(agent, "/healthz") == (200, "ok")


def test_the_target_of_a_planted_link_is_left_alone(agent: LabAgent) -> None:
    target = agent.socket.with_name("planted")
    link_in_its_place(agent.socket)
    eventually(lambda: connects(agent.socket))
    assert not agent.socket.is_symlink()
    assert target.read_text() == "not the agent's"


DIRECTORIES = "netutil_socket_directories_total"


def names_aside(path: Path) -> list[str]:
    return [name for name in os.listdir(path.parent) if name != path.name]


def directory_check(agent: LabAgent) -> dict[str, str]:
    """Return the doctor's check of the directory of the pods' socket."""
    command = [sys.executable, "-m", "netutil.client", "node", "doctor", "-o", "json"]
    places = [f"--admin-socket={agent.admin_socket}", f"--socket={agent.socket}"]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    checks = json.loads(done.stdout)["checks"]
    (found,) = (one for one in checks if one["name"] == "socket directory")
    return dict(found)


def test_an_agent_starts_where_a_pods_subpath_came_first(another_lab: Lab) -> None:
    paths = (another_lab.socket, another_lab.admin_socket)
    for path in paths:
        (path / "x").mkdir(parents=True)
    agent, web = another_lab.agent(), another_lab.pods[0].containers[0]
    assert all(map(connects, paths))
    eventually(lambda: not any(map(names_aside, paths)))  # each socket exists before that
    eventually(lambda: metric(agent, DIRECTORIES) == len(paths))
    said = f"listener: removed a directory at {agent.socket}; a pod's subPath creates one there"
    assert said in agent.stderr_text()
    assert directory_check(agent)["outcome"] == "ok"
    with asking(web) as client:
        assert client.ask("pod", fresh=True)["said"] == "web"


def test_a_foreign_directory_is_moved_aside_as_the_doctor_says(
    another_lab: Lab,
) -> None:
    (another_lab.socket / "x").mkdir(parents=True)
    (another_lab.socket / "x" / "data").write_text("data")
    agent = another_lab.agent()
    (aside,) = names_aside(agent.socket)
    assert (agent.socket.with_name(aside) / "x" / "data").read_text() == "data"
    check = directory_check(agent)
    assert check["outcome"] == "warning"
    assert check["found"] == f"moved aside from {agent.socket} and not removed: {aside}"
    assert "by hand" in check["remedy"]


def test_the_doctor_reports_a_name_that_a_subpath_created(another_lab: Lab) -> None:
    agent = another_lab.agent()
    (agent.socket.parent / "x" / "y").mkdir(parents=True)
    check = directory_check(agent)
    said = f"{agent.socket.parent} holds what the agent did not make (1): x"
    assert (check["outcome"], check["found"]) == ("warning", said)


def has_started(agent: LabAgent) -> bool:
    return "agent: serving on" in agent.stderr_text()


def test_successive_agents_find_a_directory_each_time(another_lab: Lab) -> None:
    """A pod gains the time between two agents, or nothing, and its directories do not add up."""
    agent = another_lab.agent()
    for number in range(6):
        surge = number % 2  # the next agent starts before the last one has ended
        if not surge:
            agent.stop()
        if another_lab.socket.is_socket():
            another_lab.socket.unlink()
        (another_lab.socket / "x").mkdir(parents=True)
        following = another_lab.agent()
        if surge:
            # On a busy machine the last agent rebinds the path before the next one has started.
            eventually(partial(has_started, following))
            agent.stop()
        agent = following
        assert connects(agent.socket)
        eventually(lambda: not names_aside(another_lab.socket))  # the socket exists before that


@pytest.fixture
def another_lab() -> Iterator[Lab]:
    """A lab whose pod has an intact mount."""
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as another:
        another.pod("web").container("app")
        yield another


def test_connections_survive_the_removal_of_the_file(another_lab: Lab) -> None:
    agent, web = another_lab.agent(), another_lab.pods[0].containers[0]
    with asking(web) as client:
        assert client.ask("pod")["said"] == "web"
        file_deleted(agent.socket)
        assert client.ask("pod")["said"] == "web"
        eventually(lambda: connects(agent.socket))
        assert client.ask("pod", fresh=True)["said"] == "web"


def test_a_socket_that_a_pod_put_there_is_replaced(another_lab: Lab) -> None:
    """Its hostPath is writable for it, and it listens: its PID namespace is not an agent's."""
    agent, web = another_lab.agent(), another_lab.pods[0].containers[0]
    listen = [sys.executable, "-c", LISTEN, "/etc/netutil/net.sock"]
    hostile = web.spawn(listen, stdout=subprocess.PIPE)
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == b"listening\n"
        planted = inode(agent.socket)
        eventually(lambda: inode(agent.socket) != planted and connects(agent.socket))
        with asking(web) as client:
            assert client.ask("pod", fresh=True)["said"] == "web"
        assert "was the socket of a process that is not an agent" in agent.stderr_text()
    finally:
        hostile.kill()
        hostile.wait()


def test_a_directory_deleted_under_a_mount_fails_liveness(another_lab: Lab) -> None:
    """As in the agent's container: only a new container mounts what the host has made since."""
    host, mounted = another_lab.socket.parent, another_lab.directory / "mounted"
    mounted.mkdir()
    script = f'mount --bind {host} {mounted} && exec "$@"'
    around = ["unshare", "--mount", "sh", "-c", script, "agent"]
    agent = another_lab.agent(f"--socket={mounted}/net.sock", around=around, writable=[mounted])
    assert probe(agent, "/healthz") == (200, "ok")
    shutil.rmtree(host)
    status, said = eventually(lambda: (p := probe(agent, "/healthz"))[0] == 503 and p)
    assert (status, "was deleted on the host" in said) == (503, True)
    assert "open connections are kept" in agent.stderr_text()
