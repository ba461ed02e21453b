"""The end of a stream of snapshots, its release, and the limit of streams."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import raw_calls
from tests.support.fakes.podresources import KubeletDouble, pod
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import links_are_refused, netutil
from tests.support.nodes.measures import MAX_GROWTH, MEBIBYTE, memory, metric
from tests.support.nodes.watching import addresses, annotate, ip, watching
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("watch")]

NO_KUBELET = "--pod-resources=/nonexistent/kubelet.sock"
FORGETFUL = """
from netutil.agent.pods import grace_cache
grace_cache.REMEMBERED_SECONDS = 1.0
from netutil.agent.__main__ import main
raise SystemExit(main())
"""
"""An agent that forgets in a second the pods that its list lacks, instead of ten minutes."""


def descriptors(agent: LabAgent) -> list[str]:
    """Return the agent's descriptors, without the numbers that differ each time."""
    found = []
    for entry in os.scandir(f"/proc/{agent.pid}/fd"):
        try:
            found.append(re.sub(r"\d+", "", os.readlink(entry.path)))
        except FileNotFoundError:
            continue  # closed meanwhile
    return sorted(found)


def test_a_stream_ends_with_its_own_reason_when_its_pod_goes(lab: Lab) -> None:
    going, staying = lab.pod("going"), lab.pod("staying")
    containers = [one.container("app") for one in (going, staying)]
    agent = lab.agent("--pod-refresh=0.2", NO_KUBELET, command=[sys.executable, "-c", FORGETFUL])
    with watching(containers[0]) as watcher, watching(containers[1]) as other:
        watcher.next()
        other.next()
        going.deleted = True  # the list does not have it any more; its processes still run
        lab.write_pod_list()
        assert watcher.next() == {"code": "NOT_FOUND", "reason": "POD_GONE"}
        annotate(lab, staying, "example.com/after", "all")
        assert other.next()["changed"] == ["pod"]
        eventually(lambda: metric(agent, "netutil_watchers") == 1)
    going.deleted = False


def test_a_list_that_is_empty_for_a_moment_ends_no_stream(lab: Lab) -> None:
    """As that of a kubelet that has just started."""
    pod = lab.pod("web")
    container = pod.container("app")
    lab.agent("--pod-refresh=0.2", NO_KUBELET)
    with watching(container) as watcher:
        watcher.next()
        pod.deleted = True
        lab.write_pod_list()
        assert netutil(container, "whoami", "--timeout", "20")["name"] == "web"
        pod.deleted = False
        annotate(lab, pod, "example.com/after", "all")
        assert watcher.next()["changed"] == ["pod"]


def test_streams_end_with_the_agent_and_the_next_one_serves_them(lab: Lab) -> None:
    containers = [lab.pod(f"pod-{number}").container("app") for number in range(4)]
    agent = lab.agent(NO_KUBELET)
    with ExitStack() as stack:
        watchers = [stack.enter_context(watching(one)) for one in containers for _ in range(2)]
        for watcher in watchers:
            watcher.next()
        assert metric(agent, "netutil_watchers") == 8
        before = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - before < 5
        ends = [watcher.next() for watcher in watchers]
        assert ends == [{"code": "UNAVAILABLE", "reason": "AGENT_RESTARTING"}] * 8
    lab.agent(NO_KUBELET)
    with watching(containers[0]) as watcher:
        assert watcher.next()["version"] == "1"


def test_watchers_that_go_leave_no_descriptor_and_no_task(lab: Lab) -> None:
    containers = [lab.pod(f"pod-{number}").container("app") for number in range(2)]
    agent = lab.agent(NO_KUBELET)
    for container in containers:
        with watching(container) as watcher:  # what is made once and stays is made now
            watcher.next()
    eventually(lambda: metric(agent, "netutil_watchers") == 0)
    eventually(lambda: metric(agent, "netutil_open_connections") == 0)
    before = descriptors(agent)
    for _ in range(2):
        with ExitStack() as stack:
            watchers = [stack.enter_context(watching(one)) for one in containers for _ in range(2)]
            for watcher in watchers:
                watcher.next()
            held = descriptors(agent)
            # One socket for each namespace, and one inotify, for any number of watchers.
            assert sum("inotify" in one for one in held) == 1
        eventually(lambda: metric(agent, "netutil_watchers") == 0)
    eventually(lambda: len(descriptors(agent)) <= len(before))
    assert not [one for one in descriptors(agent) if "inotify" in one]
    eventually(lambda: metric(agent, "netutil_calls_in_flight") == 0)
    assert netlink_sockets(containers) == 0


def netlink_sockets(containers: list[LabContainer]) -> int:
    """Sockets of rtnetlink in the pods' network namespaces that are in any multicast group."""
    found = 0
    for container in containers:
        text = Path(f"/proc/{container.pid}/net/netlink").read_text(encoding="ascii")
        rows = [line.split() for line in text.splitlines()[1:]]
        found += sum(row[1] == "0" and int(row[3], 16) != 0 for row in rows)
    return found


def test_watchers_of_one_pod_share_one_socket(lab: Lab) -> None:
    web = lab.pod("web")
    containers = [web.container("app"), web.container("sidecar")]
    lab.agent(NO_KUBELET)
    if links_are_refused(containers[0]):
        return
    with ExitStack() as stack:
        watchers = [stack.enter_context(watching(one)) for one in containers for _ in range(3)]
        for watcher in watchers:
            watcher.next()
        assert netlink_sockets(containers[:1]) == 1
        ip(containers[0], "address add 192.0.2.9/24 dev eth0")
        for watcher in watchers:
            watcher.until(lambda one: "192.0.2.9/24" in addresses(one))


def test_watches_count_as_calls_of_their_pod(lab: Lab) -> None:
    container = lab.pod("web").container("app")
    other = lab.pod("other").container("app")
    lab.agent(NO_KUBELET, "--max-calls-per-pod=3")
    with ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(watching(container)).next()["version"] == "1"
        one_more = stack.enter_context(watching(container))
        refused = {"code": "RESOURCE_EXHAUSTED", "reason": "TOO_MANY_CALLS_OF_POD"}
        assert one_more.next() == refused
        assert stack.enter_context(watching(other)).next()["version"] == "1"


def test_unread_snapshots_are_bounded(lab: Lab) -> None:
    web = lab.pod("web", annotations={"large": "x" * 200 * 1024})
    container = web.container("app")
    other = lab.pod("other").container("app")
    agent = lab.agent(NO_KUBELET, "--pod-refresh=0.2")
    before = memory(agent)
    hostile = container.spawn(raw_calls.command("unread", "Watch", "4", "64"), stdin=-1)
    try:
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == b"asked\n"
        eventually(lambda: metric(agent, "netutil_send_buffer_bytes") > MEBIBYTE)
        for number in range(10):
            annotate(lab, web, "large", f"{number}" + "y" * 200 * 1024)
            ip(container, f"address add 192.0.2.{number + 1}/32 dev eth0")
            assert metric(agent, "netutil_send_buffer_bytes") <= 8 * MEBIBYTE
        assert memory(agent) - before < MAX_GROWTH
        assert netutil(other, "whoami")["name"] == "other"
    finally:
        hostile.communicate(timeout=30)
    eventually(lambda: metric(agent, "netutil_watchers") == 0)
    eventually(lambda: metric(agent, "netutil_send_buffer_bytes") == 0)


async def test_an_allocation_of_the_kubelet_reaches_a_watcher(lab: Lab) -> None:
    container = lab.pod("web", namespace="shop").container("app")
    kubelet = KubeletDouble(lab.directory / "kubelet.sock")
    kubelet.pods = [pod("web", "shop", "0000:3b:02.1")]
    async with kubelet.serving():
        lab.agent(f"--pod-resources={kubelet.path}", "--pod-refresh=0.2")
        with watching(container) as watcher:
            first = await asyncio.to_thread(watcher.next)
            assert first["snapshot"]["resources"]["devices"][0]["ID"] == "0000:3b:02.1"
            kubelet.pods = [pod("web", "shop", "0000:3b:02.2")]
            news = await asyncio.to_thread(watcher.next)
    assert news["snapshot"]["resources"]["devices"][0]["ID"] == "0000:3b:02.2"
    assert news["changed"] == ["resources"]
