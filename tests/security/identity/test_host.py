"""Processes of the host in a pod's namespaces or cgroups: the cgroups decide on the caller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.facts.links import host_network_namespace, network_namespace
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.peer import identify_process
from netutil.client import NodeClient
from netutil.client.rpc import requests

from tests.security.stage import Stage, stage
from tests.support.lab import LabContainer, LabPod
from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.client_driver import (
    EVERYTHING,
    POD_CLIENT,
    SECRET,
    SOCKET,
    Call,
    Outcomes,
    assert_nothing_leaked,
    task,
)
from tests.support.processes import pinned, process

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-identity-host")]
NOT_A_POD = ("PERMISSION_DENIED", "NOT_A_POD")
NOT_FOUND = ("NOT_FOUND", "PID_NOT_FOUND")
NETWORKS = [{"name": "cbr0", "interface": "eth0", "ips": ["10.1.0.5"], "default": True}]
NEW_NETWORK = "assert ctypes.CDLL(None).unshare(0x40000000) == 0\n"


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


@pytest.fixture(scope="module")
def reported(on: Stage) -> LabPod:
    """A pod that reports a network on eth0, which it has."""
    pod = on.lab.pod("reported", annotations={NETWORK_STATUS: json.dumps(NETWORKS)})
    pod.container("app", env={"WHO": "reported"})
    on.lab.write_pod_list()
    return pod


def asked_by_host(
    *calls: Call, around: tuple[str, ...] = (), before: str = "", at: str
) -> Outcomes:
    """Ask from a process of the host's root."""
    done = subprocess.run(
        [*around, sys.executable, POD_CLIENT],
        input=task(calls, before=before, socket=at),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Outcomes.from_output(done.stdout)


def entering(container: LabContainer) -> str:
    """A script that moves its process into all of a container's cgroups."""
    files = [str(directory / "cgroup.procs") for directory in container.cgroups]
    return f"for file in {files!r}: open(file, 'w').write('0')\n"


@pytest.mark.parametrize("private", [False, True], ids=["the host's", "private"])
def test_a_host_process_in_all_of_a_pods_namespaces_is_no_pod(on: Stage, private: bool) -> None:
    """`nsenter -a`, also where the container has a cgroup namespace of its own."""
    pod = on.lab.pod(f"entered-{private}".lower(), labels={"password": SECRET})
    app = pod.container("app", private_cgroup_namespace=private)
    on.lab.write_pod_list()
    around = ("nsenter", f"--target={app.pid}", "--all")
    got = asked_by_host(*EVERYTHING, around=around, at=SOCKET)
    assert got.refusals() == {NOT_A_POD}
    assert_nothing_leaked(got)


def test_a_host_process_in_a_pods_network_namespace_is_no_pod(on: Stage) -> None:
    around = ("nsenter", f"--target={on.victim.pid}", "--net")
    got = asked_by_host(*EVERYTHING, around=around, at=str(on.lab.socket))
    assert got.refusals() == {NOT_A_POD}
    assert_nothing_leaked(got)


def test_an_explanation_refuses_a_host_process_in_pod_namespaces(on: Stage) -> None:
    enter = ("nsenter", f"--target={on.hostile.pid}", "--all", "--no-fork")
    with (
        process(before=enter) as entered,
        NodeClient(on.lab.admin_socket, timeout_seconds=20) as client,
    ):
        assert os.readlink(f"/proc/{entered.pid}/ns/net") == os.readlink(
            f"/proc/{on.hostile.pid}/ns/net"
        )
        answer = client.call(requests.explanation(entered.pid))
    assert (answer.answered, answer.steps[-1].reason) == (False, "NOT_A_POD")


def test_a_host_process_in_pod_cgroups_has_the_nodes_network(on: Stage, reported: LabPod) -> None:
    """A user that may move a process into a pod's cgroups owns the node."""
    (app,) = reported.containers
    got = asked_by_host(
        ("GetPod", {}), ("GetInterfaces", {}), before=entering(app), at=str(on.lab.socket)
    )
    pod, interfaces = got.calls
    assert (pod.answer["name"], pod.answer["container_name"]) == ("reported", "app")
    # Some machines hide the namespaces of their init from all users.
    known = host_network_namespace() is not None and not CONFINED
    assert interfaces.answer.get("host_network", False) is known
    if known:
        assert [one["name"] for one in interfaces.answer["interfaces"]] == ["eth0"]
        assert "link" not in interfaces.answer["interfaces"][0]


async def test_no_link_of_the_nodes_network_namespace_is_returned() -> None:
    with process() as host, pinned(host.pid) as pin:
        node = pin.through_running_thread(network_namespace)
        cache = NetworkCache(ReadPool().run)
        live = LiveNetworks(cache, {node})
        for found in (live.current(pin), await live.links("pod", pin, pin)):
            assert found is not None
            assert (found.host_network, found.links, found.error) == (True, (), None)
        assert len(cache) == 0


def test_a_network_namespace_that_is_not_the_pods_is_drift(on: Stage, reported: LabPod) -> None:
    if CONFINED:
        pytest.skip("confined agents report no live links: docs/install.md")
    (app,) = reported.containers
    got = asked_by_host(
        ("GetInterfaces", {}), before=entering(app) + NEW_NETWORK, at=str(on.lab.socket)
    )
    (interfaces,) = got.calls
    (eth0,) = (one for one in interfaces.answer["interfaces"] if one["name"] == "eth0")
    assert "link" not in eth0
    assert [one["field"] for one in eth0["drift"]] == ["link"]


def test_a_host_process_in_pod_cgroups_is_invisible_to_the_pod(on: Stage) -> None:
    """It has no pid in the pod's PID namespace: its environment is the host's."""
    with process(f"import os\n{entering(on.hostile)}") as entered:
        calls = [(method, fields | {"pid": str(entered.pid)}) for method, fields in EVERYTHING[:-1]]
        line = task(calls)
        done = on.hostile.run([sys.executable, POD_CLIENT], input=line, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert Outcomes.from_output(done.stdout).refusals() == {NOT_FOUND}


@contextmanager
def threaded_cgroup(container: LabContainer) -> Iterator[Path]:
    """A threaded cgroup of cgroup v2 within a container's, named like the cgroup of a pod."""
    tops = [str(one.directory) for one in find_hierarchies() if one.version == 2]
    (domain,) = (one for one in container.cgroups if str(one).startswith(tuple(tops)))
    inside = domain / f"pod{'0' * 32}"
    inside.mkdir()
    try:
        (inside / "cgroup.type").write_text("threaded")
        yield inside
    finally:
        for thread in (inside / "cgroup.threads").read_text().split():
            (domain / "cgroup.threads").write_text(thread)
        inside.rmdir()


needs_version_2 = pytest.mark.skipif(
    all(one.version != 2 for one in find_hierarchies()), reason="needs a cgroup v2 hierarchy"
)


@needs_version_2
def test_a_thread_in_a_threaded_cgroup_is_of_its_container(on: Stage) -> None:
    tree = read_cgroup_tree("/", f"/{on.lab.name}")
    with threaded_cgroup(on.hostile) as inside, on.hostile.spawn(["sleep", "infinity"]) as one:
        try:
            (inside / "cgroup.threads").write_text(str(one.host_pid))
            assert inside.name in Path(f"/proc/{one.host_pid}/cgroup").read_text()
            with pinned(one.host_pid) as pin:
                found = identify_process(pin, tree)
            # The kernel lists processes in the domain and refuses to for a threaded cgroup.
            listed = set(processes_below(str(inside.parent)))
            with pytest.raises(OSError, match="not supported"):
                (inside / "cgroup.procs").read_text()
        finally:
            one.kill()
    assert (found.pod_uid, found.container_id) == (
        on.hostile.pod.uid.replace("-", ""),
        on.hostile.id,
    )
    assert {one.host_pid, on.hostile.pid} <= listed
