"""The held networks of a pod: never older than a read, and dropped with the pod."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from netutil.agent.facts.rtnetlink import inside

from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import links_are_refused
from tests.support.nodes.measures import metric
from tests.support.nodes.watching import watching

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]

ROUNDS = 1000
_SET_MTU, _SET_ADDRESS = 0x8922, 0x8916  # linux/sockios.h
CALLER = """
import sys, threading
import grpc
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc

def stub():
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel("unix:/etc/netutil/net.sock", options)
    return netutil_pb2_grpc.NetUtilStub(channel)

def eth0(asked, everything=False):
    if everything:
        answer = asked.GetAll(api.AllRequest()).interfaces
    else:
        answer = asked.GetInterfaces(api.InterfacesRequest())
    return next(one.link for one in answer.interfaces if one.name == "eth0")

def without_end(asked):
    while True:
        eth0(asked)

stubs = [stub() for _ in range(4)]
for _ in range(2):
    threading.Thread(target=without_end, args=(stub(),), daemon=True).start()
print("asking", flush=True)
for number, _ in enumerate(sys.stdin):
    link = eth0(stubs[number % 4], everything=number % 20 == 0)
    print(link.mtu, *(one.address for one in link.addresses), flush=True)
"""


def held_by(agent: LabAgent) -> int:
    """Return the number of network namespaces that the agent holds."""
    return int(metric(agent, "netutil_network_namespaces"))


def soon(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


class Changes:
    """Changes eth0 of a container, by requests that return when it is changed."""

    def __init__(self, container: LabContainer) -> None:
        namespace = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY)
        try:
            self._socket = inside(namespace, self._open)
        finally:
            os.close(namespace)

    @staticmethod
    def _open() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def mtu(self, size: int) -> None:
        fcntl.ioctl(self._socket, _SET_MTU, struct.pack("16si12x", b"eth0", size))

    def address(self, address: str) -> None:
        wanted = struct.pack("H2x4s8x", socket.AF_INET, socket.inet_aton(address))
        fcntl.ioctl(self._socket, _SET_ADDRESS, struct.pack("16s16s", b"eth0", wanted))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def asking(container: LabContainer) -> Iterator[Callable[[], list[str]]]:
    """A process that calls without end, and once more over one of four connections for a line."""
    caller = container.spawn([sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stderr=None)
    assert caller.stdin is not None and caller.stdout is not None

    def ask() -> list[str]:
        """Return the size of eth0, and its addresses."""
        assert caller.stdin is not None and caller.stdout is not None
        caller.stdin.write(b"\n")
        caller.stdin.flush()
        return caller.stdout.readline().decode().split()

    try:
        assert caller.stdout.readline() == b"asking\n"
        assert ask()
        yield ask
    finally:
        caller.kill()
        caller.communicate()


def test_a_thousand_changes_reach_all_connections_next_answers(
    container: LabContainer,
) -> None:
    if links_are_refused(container):
        return
    changes = Changes(container)
    with asking(container) as ask:
        for number in range(ROUNDS):
            mtu, address = 1300 + number % 200, f"10.200.{number // 200}.{1 + number % 200}"
            changes.mtu(mtu)
            changes.address(address)
            answered, *addresses = ask()
            assert int(answered) == mtu, number
            assert any(one.startswith(f"{address}/") for one in addresses), (number, addresses)
    changes.close()


@pytest.mark.usefixtures("container")
def test_a_pods_network_is_released_with_its_last_process(lab: Lab) -> None:
    """The other end of its eth0, elsewhere on the node, goes. It was asked for and watched."""
    (agent,) = lab.agents
    pod = lab.pod("short-lived")
    container = pod.container("app")
    lab.write_pod_list()
    if links_are_refused(container):
        return
    peers = [interface.peer for interface in pod.interfaces]
    with watching(container) as watcher, asking(container):
        watcher.next()
        assert held_by(agent) == 1
        assert all(is_there(lab, peer) for peer in peers)
        pod.delete()
        soon(lambda: not any(is_there(lab, peer) for peer in peers), "its network goes", 3)
    assert held_by(agent) == 0


def test_a_network_without_callers_is_released(lab: Lab, container: LabContainer) -> None:
    if links_are_refused(container):
        return
    (agent,) = lab.agents
    with asking(container):
        soon(lambda: held_by(agent) == 1, "it is held")
    soon(lambda: held_by(agent) == 0, "it is let go", 3)


def is_there(lab: Lab, peer: str) -> bool:
    """Return whether the other end of a pod's interface is where the lab put it."""
    holder: Any = lab.pods[0]._site.fabric._holding_process()
    done = subprocess.run(
        ["nsenter", "-t", str(holder), "-n", "ip", "link", "show", peer],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0
