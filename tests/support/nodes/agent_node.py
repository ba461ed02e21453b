"""A node of the lab with an agent and two pods, and the ways to ask the agent from a pod."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.lab.agent import LabAgent
from tests.support.lab.confined import CONFINED
from tests.support.lab.lab import Lab
from tests.support.lab.pod import LabContainer, LabPod

NETWORK_STATUS = "k8s.v1.cni.cncf.io/network-status"


@dataclass
class Node:
    """A lab with a running agent; `feed` and `upf` are pods with one container each."""

    lab: Lab
    agent: LabAgent
    feed: LabPod
    feed_app: LabContainer
    upf: LabPod
    upf_app: LabContainer


def hostile_environment() -> list[bytes]:
    """200 variables: "=", newlines, empty values, invalid UTF-8 and 100 KiB of text."""
    entries = [b"WHO=feed", b"EMPTY=", b"SIGNS=a=b==c=", b"LINES=one\ntwo\n", b"BAD=\xff\xfe"]
    entries.append(b"BIG=" + b"x" * 100 * 1024)
    entries.append(b"no-equals-sign")
    entries.extend(b"V%03d=%d" % (number, number) for number in range(200 - len(entries)))
    return entries


@contextmanager
def agent_node() -> Iterator[Node]:
    """Start the agent and both pods. Needs root."""
    with Lab() as lab:
        feed = lab.pod(
            "feed-handler",
            namespace="trading",
            annotations={
                NETWORK_STATUS: json.dumps(
                    [
                        {"name": "cbr0", "interface": "eth0", "ips": ["10.1.0.5"], "default": True},
                        {
                            "name": "trading/fast",
                            "interface": "net1",
                            "mac": "02:00:00:00:00:05",
                            "ips": ["192.168.7.5"],
                        },
                    ]
                )
            },
        )
        feed_app = feed.container("app", env=hostile_environment(), cpus="0")
        upf = lab.pod("upf", namespace="telco")
        upf_app = upf.container("app", env={"WHO": "upf"}, cpus="0-1")
        lab.write_pod_list(lab.directory / "pods.json")
        yield Node(lab, lab.agent(), feed, feed_app, upf, upf_app)


def ask(container: LabContainer, *argv: str, **options: Any) -> Any:
    """Run a Python script, or a module by "-m", in a container and return its JSON."""
    done = container.run([sys.executable, *argv], **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def netutil(container: LabContainer, *argv: str, **options: Any) -> Any:
    """Run the command `netutil -o json` in a container."""
    return ask(container, "-m", "netutil.client", *argv, "-o", "json", **options)


def links_are_refused(container: LabContainer) -> bool:
    """Return whether the agents of this run are confined, and so report no live links.

    docs/install.md, "What to know before you choose it". Asserts that the agents say so.
    """
    if not CONFINED:
        return False
    answer = netutil(container, "interfaces")
    assert answer["link_error"]["reason"] == "NETWORK_NAMESPACE_NOT_READABLE"
    assert all(one["link"] is None for one in answer["interfaces"])
    return True
