"""The agent is replaced while pods ask: none of their calls fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster.kubectl import AGENTS, Cluster
from tests.e2e.cluster.objects import container, pod
from tests.e2e.cluster.overlay import FIRST_WITH_SURGE

# With a surge there is always an agent, and the client's usual timeout is enough. Where an agent
# ends before its successor starts, it has to outlast the gap: ten seconds were measured.
_SECONDS_WITH_SURGE, _SECONDS_WITHOUT = "5", "150"
_STATUS = "kubectl -n netutil rollout status daemonset/netutil-agent"
# One call after another by the Python client, with what it does by itself about failures.
_CALLS = """\
import json, os, sys, time
from netutil.client import Client, NetUtilError
calls, failed, longest = 0, [], 0.0
with Client(timeout_seconds=float(sys.argv[1])) as agent:
    while True:
        start = time.monotonic()
        try:
            agent.pod()
        except NetUtilError as error:
            failed.append(f"{error.reason}: {error.message}")
        calls, longest = calls + 1, max(longest, time.monotonic() - start)
        with open("/tmp/.calls", "w") as file:
            json.dump({"calls": calls, "failed": failed, "longest_seconds": longest}, file)
        os.replace("/tmp/.calls", "/tmp/calls")
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def caller(cluster: Cluster) -> Iterator[str]:
    """A pod that asks all the time."""
    surge = cluster.server_minor() >= FIRST_WITH_SURGE
    timeout = _SECONDS_WITH_SURGE if surge else _SECONDS_WITHOUT
    calling = container("app", cluster.image)
    calling["command"] = ["python", "-c", _CALLS, timeout]
    cluster.apply(pod("caller", calling))
    cluster.wait("condition=Ready", "pod/caller")
    yield "caller"
    cluster.run("delete", "--namespace=netutil-e2e", "pod/caller")


def test_a_restart_of_the_rollout_fails_no_call(cluster: Cluster, caller: str) -> None:
    before = _calls(cluster, caller)
    agent = cluster.agent()["metadata"]["uid"]

    cluster.run("-n", AGENTS, "rollout", "restart", "daemonset/netutil-agent")
    cluster.documented(_STATUS)

    assert cluster.agent()["metadata"]["uid"] != agent
    _assert_none_failed(cluster, caller, before)


def test_another_setting_fails_no_call(cluster: Cluster, caller: str) -> None:
    before = _calls(cluster, caller)

    verify = "NETUTIL_KUBELET_VERIFY=ca"
    cluster.documented(f"kubectl -n netutil set env daemonset/netutil-agent {verify}")
    cluster.documented(_STATUS)

    _assert_none_failed(cluster, caller, before)


def test_a_missing_image_stops_the_rollout_and_undo_repairs_it(cluster: Cluster) -> None:
    image = f"agent={cluster.image.rpartition(':')[0]}:no-such-tag"
    cluster.run("-n", AGENTS, "set", "image", "daemonset/netutil-agent", image)
    stuck = cluster.attempt(
        "-n", AGENTS, "rollout", "status", "daemonset/netutil-agent", "--timeout=3s"
    )
    assert stuck.returncode != 0

    cluster.run("-n", AGENTS, "rollout", "undo", "daemonset/netutil-agent")
    cluster.documented("kubectl -n netutil rollout restart daemonset/netutil-agent")
    cluster.documented(_STATUS)


def _calls(cluster: Cluster, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        cluster.execute(pod, "sh", "-c", "until cat /tmp/calls 2>/dev/null; do sleep 0.1; done")
    )
    return found


def _assert_none_failed(cluster: Cluster, pod: str, before: dict[str, Any]) -> None:
    """More calls were answered by the new agent, and none failed in between."""
    at_the_end = _calls(cluster, pod)
    deadline = time.monotonic() + 180
    while (now := _calls(cluster, pod))["calls"] < at_the_end["calls"] + 20:
        assert time.monotonic() < deadline, now
    # One line for readers of the log of a run (pytest -rA shows it).
    print(f"{now['calls'] - before['calls']} calls, the longest {now['longest_seconds']:.1f} s")
    assert now["failed"] == []
