"""The client's watch, cache and wait in real pods, with the real agent."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import LabProcess
from tests.support.nodes.agent_node import NETWORK_STATUS, links_are_refused
from tests.support.nodes.watching import annotate, ip, set_cpus
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("watch")]

FLAGS = ("--pod-refresh=0.2", "--pod-resources=/nonexistent/kubelet.sock")
CACHED = """
import queue, sys
from netutil.client import Cached
changes = queue.Queue()
with Cached(on_change=changes.put) as facts:
    print(facts.pod().name, facts.cpu().cpuset, flush=True)
    for line in sys.stdin:
        if line == "change\\n":
            print(*changes.get(timeout=30).changed, facts.cpu().cpuset, flush=True)
        else:
            print(facts.pod().name, "fresh" if facts.fresh else "stale", flush=True)
"""


@pytest.fixture
def web(lab: Lab) -> tuple[LabPod, LabContainer]:
    pod = lab.pod("web")
    return pod, pod.container("app", cpus="0-1")


def command(container: LabContainer, *arguments: str) -> LabProcess:
    return container.spawn([sys.executable, "-m", "netutil.client", *arguments])


def ended(process: LabProcess) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out.decode(), err.decode()


def test_an_init_container_waits_for_multus_annotation(
    lab: Lab, web: tuple[LabPod, LabContainer]
) -> None:
    pod, app = web
    lab.agent(*FLAGS)
    arguments = ("network", "--wait", "INTERFACE=net1", "--timeout", "60s", "-o", "json")
    waiting = command(app, *arguments)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    annotate(lab, pod, NETWORK_STATUS, "")  # there, and not written yet
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(2)
    networks = [
        {"name": "cbr0", "interface": "eth0", "default": True},
        {"name": "shop/fast", "interface": "net1", "ips": ["192.0.2.7"]},
    ]
    annotate(lab, pod, NETWORK_STATUS, json.dumps(networks))
    code, out, err = ended(waiting)
    assert (code, err) == (0, "")
    (network,) = json.loads(out)["status"]
    assert (network["interface"], network["ips"]) == ("net1", ["192.0.2.7"])
    assert ended(command(app, *arguments))[0] == 0  # it is there already


def test_a_live_link_ends_the_wait_too_and_a_timeout_is_exit_3(
    lab: Lab, web: tuple[LabPod, LabContainer]
) -> None:
    _, app = web
    lab.agent(*FLAGS)
    if links_are_refused(app):
        return
    waiting = command(app, "interfaces", "--wait", "INTERFACE=net1", "-o", "json")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1)
    ip(app, "link add net1 type bridge")
    code, out, _ = ended(waiting)
    assert code == 0
    assert json.loads(out)["interfaces"][0]["link"]["kind"] == "bridge"
    code, out, err = ended(command(app, "network", "--wait", "INTERFACE=net2", "--timeout", "1s"))
    assert (code, out) == (3, "")
    assert "the pod has: eth0, net1" in err


def said(process: LabProcess, word: str = "") -> str:
    assert process.stdout is not None
    if word:
        assert process.stdin is not None
        process.stdin.write(f"{word}\n".encode())
        process.stdin.flush()
    return process.stdout.readline().decode().strip()


def test_a_cache_hears_of_changes_and_outlives_the_agent(
    lab: Lab, web: tuple[LabPod, LabContainer]
) -> None:
    _, app = web
    agent = lab.agent(*FLAGS)
    cached = app.spawn([sys.executable, "-c", CACHED], stdin=subprocess.PIPE, stderr=None)
    assert said(cached) == "web 0-1"
    set_cpus(app, "0")
    assert said(cached, "change") == "cpu 0"
    agent.stop()
    assert said(cached, "now") == "web stale"
    set_cpus(app, "0-1")  # no event reports it now
    lab.agent(*FLAGS)
    assert said(cached, "change") == "cpu 0-1"
    assert said(cached, "now") == "web fresh"
    cached.communicate(timeout=30)


def test_the_command_prints_changes_of_its_pod(lab: Lab, web: tuple[LabPod, LabContainer]) -> None:
    _, app = web
    lab.agent(*FLAGS)
    if links_are_refused(app):
        return
    watching = command(app, "watch")
    assert said(watching).endswith("watching default/web; no resources: POD_RESOURCES_UNAVAILABLE")
    ip(app, "address add 192.0.2.9/24 dev eth0")
    line = said(watching)
    assert "interfaces" in line and line.endswith("- -> 192.0.2.9/24")
    watching.kill()
    watching.communicate(timeout=30)


def test_two_containers_of_a_pod_see_their_own_cpus(
    lab: Lab, web: tuple[LabPod, LabContainer]
) -> None:
    pod, app = web
    sidecar = pod.container("sidecar", cpus="0")
    lab.agent(*FLAGS)
    processes: list[Any] = [command(one, "watch", "-o", "json") for one in (app, sidecar)]
    first = [json.loads(said(one)) for one in processes]
    assert [one["snapshot"]["cpu"]["cpuset"] for one in first] == ["0-1", "0"]
    set_cpus(app, "1")
    assert json.loads(said(processes[0]))["snapshot"]["cpu"]["cpuset"] == "1"
    for one in processes:
        one.kill()
        one.communicate(timeout=30)


def examples() -> list[str]:
    text = (ROOT / "docs" / "facts" / "watch.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_the_document_run(lab: Lab, web: tuple[LabPod, LabContainer]) -> None:
    _, app = web
    lab.agent(*FLAGS)
    if links_are_refused(app):
        return
    ip(app, "link add net1 type bridge")
    assert len(examples()) >= 2
    for example in examples():
        done = app.run([sys.executable, "-W", "error", "-c", example])
        assert (done.returncode, done.stderr) == (0, b"")
