"""The operators' service of a real agent: one pod described, activity, a trace, a diagnosis."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psutil
import pytest
from netutil.agent.identity.pidfd import choose_pin, pin_by_peer_pidfd
from netutil.client import NodeClient, NotFound, Unavailable
from netutil.client.cli.offline_checks import with_outside
from netutil.client.models.node import DescribedPod, Diagnosis, Traced, TracedCall
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient
from netutil.client.rpc.requests import Request

from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.agent import LabAgent
from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, needs_lab]

TREASURE = "correct-horse-battery-staple"
TIMEOUT_SECONDS = 30.0
MANIFEST = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass
class Node:
    lab: Lab
    agent: LabAgent
    web: LabPod
    app: LabContainer
    side: LabContainer


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    networks = [{"name": "cbr0", "interface": "eth0", "ips": ["10.1.0.5"], "default": True}]
    with Lab() as lab:
        web = lab.pod(
            "web",
            namespace="shop",
            labels={"tier": "front"},
            annotations={
                NETWORK_STATUS: json.dumps(networks),
                MANIFEST: json.dumps({"env": TREASURE}),
            },
        )
        environment = {"KEY": TREASURE, "PATH": os.environ["PATH"]}
        app = web.container("app", env=environment, cpus="0", argv=["sleep", "1000000"])
        side = web.container("side", env=environment, cpus="0-1")
        web.container("setup", env=environment, kind="init").kill()
        lab.pod("quiet").container("app")
        lab.write_pod_list()
        yield Node(lab, lab.agent(), web, app, side)


@pytest.fixture
def client(node: Node) -> Iterator[NodeClient]:
    with NodeClient(node.lab.admin_socket, timeout_seconds=20) as client:
        yield client


def ask(container: LabContainer, *words: str) -> subprocess.CompletedProcess[bytes]:
    return container.run([sys.executable, "-m", "netutil.client", *words])


def test_a_pod_is_described_with_the_sources_of_its_facts(node: Node, client: NodeClient) -> None:
    answer = client.call(requests.described_pod("shop", "web"))
    assert (answer.pod.uid, answer.labels) == (node.web.uid, {"tier": "front"})
    assert answer.annotations == tuple(sorted((NETWORK_STATUS, MANIFEST)))
    assert {one.part: one.read for one in answer.sources} == {
        "pod": str(node.lab.directory / "pods.json"),
        "network_status": f"annotation {NETWORK_STATUS}",
        "interfaces": f"/proc/{node.app.pid}/ns/net, rtnetlink(7)",
    }
    assert answer.network_status is not None and answer.network_status.status[0].interface == "eth0"
    assert answer.interfaces is not None
    assert answer.interfaces.af_xdp is None  # no environment is read for an operator
    (eth0,) = answer.interfaces.interfaces
    if CONFINED:
        error = answer.interfaces.link_error
        assert error is not None and error.reason == "NETWORK_NAMESPACE_NOT_READABLE"
    else:
        assert eth0.link is not None and eth0.link.mac
    setup, app, side = answer.containers
    assert (app.container.name, app.pids, app.processes) == ("app", (node.app.pid,), 1)
    assert app.cpu is not None and app.cpu.effective_cpus == "0"
    assert side.cpu is not None and side.cpu.effective_cpus == "0-1"
    sources = {one.part: one.read for one in app.sources}
    assert sources["identity"] == f"/proc/{node.app.pid}/cgroup"
    assert sources["cpu"] in map(str, node.app.cgroups)
    assert [one.part for one in app.errors] == ["resources"]  # no kubelet here
    assert (setup.container.state, setup.cpu, setup.pids) == ("terminated", None, ())


def test_a_pod_of_another_node_is_not_found(client: NodeClient) -> None:
    with pytest.raises(NotFound) as missing:
        client.call(requests.described_pod("shop", "elsewhere"))
    assert missing.value.reason == "POD_NOT_FOUND"
    assert "'shop/elsewhere'" in missing.value.message


def test_activity_counts_calls_refusals_and_latencies(node: Node, client: NodeClient) -> None:
    key = node.web.uid.replace("-", "")

    def of_web() -> tuple[int, int, int, float]:
        found = client.call(requests.activity())
        (web,) = (one for one in found.pods if one.uid == key)
        assert (web.namespace, web.name) == ("shop", "web")
        assert len(web.latency_counts) == len(found.latency_bounds_seconds) + 1
        return web.calls, web.not_found, sum(web.latency_counts), web.seconds

    before = of_web()
    assert ask(node.app, "cpu").returncode == 0
    assert ask(node.app, "cpu", "--pid", "99999").returncode == 3
    after = of_web()
    assert [now - then for now, then in zip(after[:3], before[:3], strict=True)] == [2, 1, 2]
    assert after[3] > before[3]


@asynccontextmanager
async def tracing(lab: Lab) -> AsyncIterator[AsyncIterator[Traced]]:
    """A trace that misses nothing from here on."""
    async with AsyncNodeClient(lab.admin_socket) as client:
        stream = client.stream(requests.TRACE, TIMEOUT_SECONDS)
        async with aclosing(stream) as trace:
            assert await anext(trace) == Traced(calls=(), lost=0)
            yield trace


async def calls_of(stream: AsyncIterator[Traced]) -> AsyncIterator[TracedCall]:
    async for traced in stream:
        assert traced.lost == 0
        for call in traced.calls:
            yield call


async def test_a_trace_shows_caller_and_method_but_no_value(node: Node) -> None:
    async with tracing(node.lab) as trace:
        calls = calls_of(trace)
        done = await asyncio.to_thread(ask, node.app, "env", "KEY")
        assert TREASURE.encode() in done.stdout
        call = await anext(calls)
        assert (call.method, call.event, call.code, call.reason) == (
            "GetEnv",
            "answered",
            "OK",
            "",
        )
        assert (call.namespace, call.pod, call.container) == ("shop", "web", "app")
        assert call.container_id == node.app.id
        assert call.pid > 0 and call.uid == 0 and call.seconds > 0
        assert TREASURE not in repr(call) and "KEY" not in repr(call)
        await asyncio.to_thread(ask, node.app, "env", "NOTHING")
        call = await anext(calls)
        assert (call.code, call.reason) == ("NOT_FOUND", "VARIABLE_NOT_SET")


async def test_a_trace_names_the_pid_of_a_refused_caller(node: Node) -> None:
    """A host process is no pod: it has no name, but a number that can be explained."""
    command = [sys.executable, "-m", "netutil.client", "cpu", "--socket", str(node.lab.socket)]
    async with tracing(node.lab) as trace:
        calls = calls_of(trace)
        host = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        call = await anext(calls)
        await host.wait()
    assert (call.pid, call.pod, call.reason) == (host.pid, "", "NOT_A_POD")


async def test_a_trace_shows_the_begin_and_the_end_of_a_stream(node: Node) -> None:
    async with tracing(node.lab) as trace:
        calls = calls_of(trace)
        words = [sys.executable, "-m", "netutil.client", "watch"]
        with await asyncio.to_thread(node.app.spawn, words) as watching:
            began = await anext(calls)
            watching.kill()
        ended = await anext(calls)
    assert [(one.method, one.event) for one in (began, ended)] == [
        ("Watch", "began"),
        ("Watch", "ended"),
    ]
    assert began.seconds == ended.seconds > 0


def test_the_doctor_finds_only_what_this_machine_lacks(node: Node, client: NodeClient) -> None:
    found = client.call(requests.diagnosis())
    checks = {one.name: one for one in found.checks}
    for name in ("hostPID", "cgroups", "host /sys", "pod list", "operator socket"):
        assert checks[name].outcome == "ok", checks[name]
    assert checks["capabilities"].outcome == ("warning" if CONFINED else "ok")
    assert "2 pods" in checks["pod list"].found
    assert checks["PodResources"].outcome == "warning"
    assert "--pod-resources" in checks["PodResources"].remedy
    both = {one.name: one for one in with_outside(found, str(node.lab.socket)).checks}
    assert (both["agent"].outcome, both["connect"].outcome) == ("ok", "ok")


def test_the_documented_sample_has_every_check(node: Node, client: NodeClient) -> None:
    page = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    sample = page.partition("### `netutil node doctor`\n\n```\n")[2].partition("```")[0]
    documented = re.findall(r"^(?:ok|warning|failed) +(\S+(?: \S+)*)  ", sample, re.MULTILINE)
    found = with_outside(client.call(requests.diagnosis()), str(node.lab.socket))
    assert documented == [one.name for one in found.checks]


def test_the_doctor_finds_broken_parts(node: Node, client: NodeClient) -> None:
    pods = node.lab.directory / "pods.json"
    client.call(requests.diagnosis())  # from here on there is a last list
    whole = pods.read_text()
    pods.unlink()
    try:
        found = client.call(requests.diagnosis())
    finally:
        pods.write_text(whole)
        wait_for_a_list(client)
    checks = {one.name: one for one in found.checks}
    assert checks["pod list"].outcome == "failed"
    assert "the last list is of" in checks["pod list"].found


def wait_for_a_list(client: NodeClient) -> None:
    """For a second after a failed fetch the agent returns its error; other tests come next."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            client.call(requests.node_pods())
        except Unavailable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


_TRY_AGAIN = "SOCKET_NOT_PERMITTED"


def test_only_root_is_answered(node: Node) -> None:
    """Each method refuses by itself: the rights of the socket are a second lock."""
    directory, socket = node.lab.admin_socket.parent, node.lab.admin_socket
    script = (
        "import asyncio, os, sys\n"
        "from netutil.client import AsyncNodeClient, NodeClient\n"
        "from netutil.client.rpc import requests\n"
        "os.setgid(12345); os.setuid(12345)\n"
        "asked = [requests.node_pods(), requests.described_pod('shop', 'web'),\n"
        "         requests.described_node(),\n"
        "         requests.activity(), requests.explanation(1),\n"
        "         requests.diagnosis()]\n"
        "for one in asked:\n"
        "    with NodeClient(sys.argv[1], timeout_seconds=30) as client:\n"
        "        try: client.call(one)\n"
        "        except Exception as error: print(error.reason)\n"
        "        else: print('answered')\n"
        "async def stream(question):\n"
        "    async with AsyncNodeClient(sys.argv[1]) as client:\n"
        "        await anext(client.stream(question))\n"
        "for one in (requests.TRACE, requests.described_pods()):\n"
        "    try: asyncio.run(stream(one))\n"
        "    except Exception as error: print(error.reason)\n"
        "    else: print('answered')\n"
    )
    codes = [_TRY_AGAIN] * 8
    done = threading.Event()

    def keep_open() -> None:
        """The agent soon rebinds a socket whose mode was changed."""
        while not done.wait(0.05):
            with suppress(FileNotFoundError):
                socket.chmod(0o666)

    directory.chmod(0o755)
    opener = threading.Thread(target=keep_open)
    opener.start()
    try:
        for _ in range(20):
            command = [sys.executable, "-c", script, str(socket)]
            asked = subprocess.run(command, capture_output=True, text=True, check=False)
            pairs = zip(codes, asked.stdout.split(), strict=True)
            codes = [after if before == _TRY_AGAIN else before for before, after in pairs]
            if _TRY_AGAIN not in codes:
                break
    finally:
        done.set()
        opener.join()
        directory.chmod(0o700)
    assert codes == ["NOT_AN_OPERATOR"] * 8, asked.stderr


async def test_pods_described_together_equal_those_one_by_one(
    node: Node, client: NodeClient
) -> None:
    async with AsyncNodeClient(node.lab.admin_socket) as together:
        stream = together.stream(requests.described_pods(), TIMEOUT_SECONDS)
        found = [one async for one in stream]
    assert [(one.pod.namespace, one.pod.name) for one in found] == [
        ("default", "quiet"),
        ("shop", "web"),
    ]
    for one in found:
        alone = client.call(requests.described_pod(one.pod.namespace, one.pod.name))
        assert timeless(one) == timeless(alone)
    assert TREASURE not in repr(found) and "1000000" not in repr(found)


def timeless(pod: DescribedPod) -> object:
    """All but the topology, and what differs between two readings: times, links' counters."""
    names = [one.name for one in pod.interfaces.interfaces] if pod.interfaces else []
    network = pod.network_status and replace(pod.network_status, observed_at=None)
    containers = tuple(
        replace(one, cpu=one.cpu and replace(one.cpu, cpus=())) for one in pod.containers
    )
    same = replace(
        pod, observed_at=None, network_status=network, interfaces=None, containers=containers
    )
    return same, names


async def test_an_agent_that_stops_ends_its_traces_itself() -> None:
    """Else gRPC would, after ten seconds, and without a reason."""
    with Lab() as lab:
        agent = lab.agent()
        async with tracing(lab) as trace:
            stopping = asyncio.create_task(asyncio.to_thread(agent.stop))
            with pytest.raises(Unavailable) as ended:
                await anext(trace)
            assert await stopping == 0
    assert ended.value.reason == "AGENT_RESTARTING"


def test_the_doctor_examines_from_outside_without_an_agent(node: Node) -> None:
    missing = f"{node.lab.directory}/none.sock"
    with NodeClient(missing, timeout_seconds=0.5) as client, pytest.raises(Unavailable) as down:
        client.call(requests.diagnosis())
    found = with_outside(down.value, missing)
    checks = {one.name: one for one in found.checks}
    assert checks["agent"].outcome == checks["connect"].outcome == "failed"
    assert checks["user"].outcome == checks["cgroups"].outcome == "ok"
    by_kernel = choose_pin()[0] is pin_by_peer_pidfd  # since Linux 6.5
    assert checks["kernel"].outcome == ("ok" if by_kernel else "warning")
    assert checks["agent"].remedy and isinstance(found, Diagnosis)


def test_the_agent_reports_what_it_uses(node: Node, client: NodeClient) -> None:
    answer = client.call(requests.activity())
    assert answer.agent is not None and answer.agent_error is None
    real = psutil.Process(answer.agent.pid)
    assert abs(answer.agent.started_at.timestamp() - real.create_time()) < 1
    assert abs(answer.agent.rss_bytes - real.memory_info().rss) < 4 * 2**20
    assert 0 < answer.agent.cpu_seconds <= round(sum(real.cpu_times()[:2]), 2)
    assert answer.agent.threads > 1 and answer.agent.descriptors > 3
    memory = next(one for one in client.call(requests.diagnosis()).checks if one.name == "memory")
    assert "MiB resident" in memory.found
    explained = client.call(requests.explanation(node.app.pid))
    assert "may use CPUs 0, last on 0" in explained.steps[1].found[-1]


def test_a_secret_of_the_pod_is_in_no_answer(node: Node, client: NodeClient) -> None:
    asked: tuple[Request[Any], ...] = (
        requests.node_pods(),
        requests.described_pod("shop", "web"),
        requests.described_node(),
        requests.activity(),
        requests.explanation(node.app.pid),
        requests.diagnosis(),
    )
    for question in asked:
        answer = repr(client.call(question))
        assert TREASURE not in answer
        assert "1000000" not in answer  # an argument of its command line
