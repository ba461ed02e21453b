"""The agent with its device plugin: the process, its diagnostics, its metrics, its answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from netutil.podresources.v1 import podresources_pb2 as podresources_v1

from tests.support.fakes.device_plugins import KubeletDouble
from tests.support.lab.agent import LabAgent
from tests.support.lab.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.lab.pod import LabContainer
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.dpdk_node import podresources
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("device-plugin")]

RESOURCE = "example.com/netutil"


@dataclass
class PluginNode:
    lab: Lab
    agent: LabAgent
    app: LabContainer
    kubelet: KubeletDouble

    def metric(self, name: str) -> float:
        return metric(self.agent, name)

    def check(self) -> dict[str, Any]:
        """The line of the plugin in `netutil node doctor`."""
        command = [sys.executable, "-m", "netutil.client", "node", "doctor", "-o", "json"]
        command += ["--admin-socket", str(self.agent.admin_socket)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        (found,) = (
            one for one in json.loads(done.stdout)["checks"] if one["name"] == "device plugin"
        )
        return dict(found)


@contextmanager
def serving(directory: Path) -> Iterator[tuple[KubeletDouble, asyncio.AbstractEventLoop]]:
    """The double of the kubelet on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    double = KubeletDouble(directory)
    try:
        asyncio.run_coroutine_threadsafe(double.start(), loop).result(30)
        yield double, loop
    finally:
        asyncio.run_coroutine_threadsafe(double.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def node() -> Iterator[PluginNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as resources:
        pod = lab.pod("web", namespace="shop")
        app = pod.container("app")
        devices = [
            podresources_v1.ContainerDevices(resource_name=RESOURCE, device_ids=["netutil-0001"]),
            podresources_v1.ContainerDevices(resource_name="example.com/nic", device_ids=["a"]),
        ]
        given = podresources_v1.ContainerResources(name="app", devices=devices)
        resources.pods = [
            podresources_v1.PodResources(name="web", namespace="shop", containers=[given])
        ]
        lab.write_pod_list(lab.directory / "pods.json")
        directory = lab.directory / "plugins"
        directory.mkdir()
        with serving(directory) as (kubelet, _):
            agent = lab.agent(
                f"--device-plugin={RESOURCE}",
                f"--device-plugin-dir={directory}",
                f"--pod-resources={resources.path}",
                writable=[directory],
            )
            yield PluginNode(lab, agent, app, kubelet)


def test_the_agent_registers_its_plugin(node: PluginNode) -> None:
    eventually(lambda: node.metric("netutil_device_plugin_registered") == 1)
    assert node.metric("netutil_device_plugin_configured") == 1
    assert node.metric("netutil_device_plugin_registrations_total") >= 1
    assert node.kubelet.requests[0].resource_name == RESOURCE
    assert node.check()["outcome"] == "ok"


def test_the_answers_leave_the_resource_out(node: PluginNode) -> None:
    found = netutil(node.app, "devices")
    assert RESOURCE not in str(found)
    assert "example.com/nic" in str(found)
    assert RESOURCE not in str(netutil(node.app, "all"))


def test_a_caller_may_ask_for_the_resource(node: PluginNode) -> None:
    for pid in ((), ("--pid", "1")):
        found = netutil(node.app, "devices", "--agent-device", *pid)
        assert [one["resource_name"] for one in found["devices"]] == [RESOURCE, "example.com/nic"]
        assert RESOURCE not in str(netutil(node.app, "devices", *pid))


def test_the_agent_serves_pods_without_a_kubelet(node: PluginNode) -> None:
    second = node.lab.agent(
        f"--device-plugin={RESOURCE}", "--device-plugin-dir=/nonexistent/device-plugins"
    )
    try:
        broken = PluginNode(node.lab, second, node.app, node.kubelet)
        assert netutil(node.app, "whoami")["name"] == "web"
        eventually(lambda: broken.metric("netutil_device_plugin_failures_total") >= 1)
        assert broken.metric("netutil_device_plugin_registered") == 0
        assert broken.check()["outcome"] == "warning"
        assert second.stderr_text().count("device plugin: ") == 1
    finally:
        assert second.stop() == 0
