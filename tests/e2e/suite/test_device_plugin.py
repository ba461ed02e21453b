"""A container gets the socket by the agent's device plugin, whatever restarts meanwhile.

The agent is the hardened one: the plugin needs no capability. The pods have no volume for it, as
the Pod Security level `restricted` demands.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deploy import agent_pod
from tests.e2e.node import Node, wait_for
from tests.e2e.settings import RESULTS
from tests.e2e.truth import container_of, pod_resources
from tests.e2e.workloads import answer, asking, container, pod

RESOURCE = "netutil.example.com/agent"
AGENT = "netutil-agent-hardened-plugin"
SOCKET_DIRECTORY = Path("/run/netutil")
_RESULTS_ONLY: dict[str, Any] = {
    "volumeMounts": [{"name": "results", "mountPath": "/results"}],
}
_VOLUMES = [{"name": "results", "hostPath": {"path": str(RESULTS), "type": "Directory"}}]


def agent(suffix: str = "") -> dict[str, Any]:
    return agent_pod("hardened", f"-plugin{suffix}", "device-plugin")


def client(name: str, **more: Any) -> dict[str, Any]:
    """A pod without a volume for the socket."""
    app = container("app", asking(name), limits={RESOURCE: "1"}, **{**_RESULTS_ONLY, **more})
    return pod(name, app, volumes=[*_VOLUMES, {"name": "scratch", "emptyDir": {}}])


def await_plugin(node: Node, name: str = AGENT) -> None:
    """Wait until the diagnostics of an agent say that the kubelet has its plugin."""

    def registered() -> bool:
        try:
            done = container_of(node, name, "agent").run("netutil", "node", "doctor")
        except LookupError:  # a test before has ended the agent, and the status is not of now
            return False
        return f"{RESOURCE}, mounted in " in done.stdout

    wait_for(registered, "the registration of the device plugin")


@pytest.fixture
def plugged(node: Node) -> Iterator[Node]:
    """A node whose only agent has the device plugin, registered."""
    others = [name for name in node.pods() if name.startswith("netutil-agent") and name != AGENT]
    if AGENT not in node.pods():
        node.add(agent())
    node.running(AGENT)
    node.remove(*others)
    await_plugin(node)
    yield node
    node.remove(*(name for name in node.pods() if name.startswith("plugged")))
    for path in RESULTS.glob("plugged*"):
        path.unlink()


def run_client(node: Node, name: str) -> dict[str, Any]:
    """Start a pod and return what it was answered."""
    node.add(client(name))
    node.running(name)
    wait_for((RESULTS / name).exists, "an answer")
    return answer(name)


def test_a_container_without_a_volume_is_answered(plugged: Node) -> None:
    found = run_client(plugged, "plugged")
    assert found["pod"]["name"].startswith("plugged")
    app = container_of(plugged, "plugged", "app")
    (mount,) = (
        line.split()
        for line in Path(f"/proc/{app.pid}/mountinfo").read_text().split("\n")
        if line and line.split()[4] == "/etc/netutil"
    )
    assert "ro" in mount[5].split(",")
    done = app.run("touch", "/etc/netutil/x")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_the_resource_is_no_device_of_the_pod(plugged: Node) -> None:
    found = run_client(plugged, "plugged")
    assert RESOURCE not in str(found["resources"])
    (devices,) = pod_resources()["plugged-e2e", "app"].devices
    assert devices.resource_name == RESOURCE
    shown = container_of(plugged, AGENT, "agent").run(
        "netutil", "node", "pod", "default/plugged-e2e"
    )
    assert shown.returncode == 0, shown.stderr
    assert RESOURCE not in shown.stdout


def test_a_running_pod_needs_no_plugin(plugged: Node) -> None:
    """It keeps the mount, also in a container that is started again; and it can be removed."""
    run_client(plugged, "plugged")
    before = container_of(plugged, "plugged", "app")
    plugged.remove(AGENT)
    os.kill(before.pid, signal.SIGKILL)

    def restarted() -> bool:
        (status,) = plugged.pods()["plugged"]["status"]["containerStatuses"]
        return "running" in status["state"] and before.id not in status["containerID"]

    wait_for(restarted, "a new container")
    app = container_of(plugged, "plugged", "app")
    assert app.run("ls", "/etc/netutil").returncode == 0
    plugged.add(agent())
    plugged.running(AGENT)
    assert app.ask("all")["pod"]["container_name"] == "app"
    plugged.remove(AGENT)
    plugged.remove("plugged")


def test_the_plugin_registers_with_a_restarted_kubelet(plugged: Node) -> None:
    run_client(plugged, "plugged")
    before = container_of(plugged, "plugged", "app")
    for number in range(3):
        plugged.stop_kubelet()
        plugged.start_kubelet()
        plugged.running("plugged", AGENT)
        await_plugin(plugged)
        run_client(plugged, f"plugged-{number}")
    assert container_of(plugged, "plugged", "app").id == before.id


def test_a_newer_agent_takes_the_plugin_over(plugged: Node) -> None:
    plugged.add(agent("-new"))
    plugged.running(f"{AGENT}-new")
    await_plugin(plugged, f"{AGENT}-new")
    plugged.remove(AGENT)
    run_client(plugged, "plugged")
    await_plugin(plugged, f"{AGENT}-new")


def test_a_rebooted_node_mounts_again(plugged: Node) -> None:
    """Without the plugin: its answer is in the checkpoint, until kubernetes#116376."""
    run_client(plugged, "plugged")
    before = container_of(plugged, "plugged", "app")
    plugged.reboot()
    plugged.running("plugged", AGENT)
    await_plugin(plugged)
    app = container_of(plugged, "plugged", "app")
    assert app.id != before.id
    assert app.ask("all")["pod"]["container_id"] == app.id


def test_a_pod_makes_nothing_in_the_sockets_directory(plugged: Node) -> None:
    """runc refuses the mount point. crun would make it, but is not available here."""
    before = sorted(os.listdir(SOCKET_DIRECTORY))
    below = {"name": "scratch", "mountPath": "/etc/netutil/made"}
    mounts = [*_RESULTS_ONLY["volumeMounts"], below]
    plugged.add(client("plugged-below", volumeMounts=mounts))

    def failed() -> bool:
        statuses = plugged.pods().get("plugged-below", {}).get("status", {})
        states = [one["state"] for one in statuses.get("containerStatuses", [])]
        return "read-only file system" in str(states)

    wait_for(failed, "the runtime's refusal", 120)
    assert sorted(os.listdir(SOCKET_DIRECTORY)) == before
