"""Attacks of a hostile pod, and faults of a node. Each action ends and is undone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.soak.node import Node, finish
from tests.support import raw_calls
from tests.support.attacks.connection_floods import CONNECTION_FLOODS
from tests.support.attacks.frame_floods import FLOODS
from tests.support.attacks.header_floods import HEADER_FLOODS
from tests.support.attacks.window_floods import WINDOW_FLOODS
from tests.support.fakes.kubelet import (
    Answer,
    body,
    chunked,
    dripping,
    gzip_bomb,
    list_json,
    silent,
    status,
    truncated,
)
from tests.support.nodes.watching import Watcher, ip
from tests.support.repository import ROOT

Action = Callable[[Node, Random], None]

_CONNECT_AND_DIE = """
import os, socket, sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    child = os.fork()
    if child == 0:
        one = socket.socket(socket.AF_UNIX)
        one.connect("/etc/netutil/net.sock")
        os._exit(0)
    os.waitpid(child, 0)
"""
_FLOOD = """
import sys, threading, time
from netutil.client import Client, NetUtilError
end = time.monotonic() + float(sys.argv[1])
def ask():
    with Client(timeout_seconds=5) as client:
        while time.monotonic() < end:
            try:
                getattr(client, sys.argv[2])()
            except NetUtilError:
                pass
threads = [threading.Thread(target=ask) for _ in range(8)]
[one.start() for one in threads]; [one.join() for one in threads]
"""
_MANY_CONNECTIONS = """
import socket, sys, time
held = []
for _ in range(200):
    one = socket.socket(socket.AF_UNIX)
    one.connect("/etc/netutil/net.sock")
    held.append(one)
time.sleep(float(sys.argv[1]))
"""
_SLOW_BYTES = """
import socket, sys, time
one = socket.socket(socket.AF_UNIX)
one.connect("/etc/netutil/net.sock")
end = time.monotonic() + float(sys.argv[1])
try:
    for byte in b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" * 100:
        if time.monotonic() > end:
            break
        one.sendall(bytes([byte])); time.sleep(0.05)
except OSError:
    pass
"""
_PIDS = """
import sys
from netutil.client import Client, NetUtilError
with Client(timeout_seconds=5) as client:
    for pid in (2, 3, 4711, 2**31 - 1):
        try:
            found = client.environment(pid=pid).envs
        except NetUtilError:
            continue
        if found.get("WHO", "hostile") != "hostile":
            sys.exit(3)
"""
_STOPPED = """
import os, signal, sys
from netutil.client import Client
client = Client(timeout_seconds=5)
client.pod()
sys.stdout.write("asked\\n"); sys.stdout.flush()
os.kill(os.getpid(), signal.SIGSTOP)
"""
_GREEDY = """
import json, os, sys
from netutil.client import Client, NetUtilError
address = "0000:3b:02.0"
child = os.fork()
if child == 0:
    info = json.dumps({address: {str(n): n for n in range(6000)}})
    environment = {"PCIDEVICE_X": ",".join([address] * 256), "PCIDEVICE_X_INFO": info,
                   "WHO": "hostile", **{f"V{n}": "x" * 100_000 for n in range(8)}}
    os.execve("/bin/sleep", ["sleep", "10"], environment)
with Client(timeout_seconds=5) as client:
    for ask in (client.interfaces, client.environment, client.all):
        try:
            ask(pid=child)
        except NetUtilError:
            pass
os.kill(child, 9); os.waitpid(child, 0)
"""


def pods_come_and_go(node: Node, random: Random) -> None:
    """A new pod asks for its identity at once, and gets that or an error."""
    script = (
        "import sys\nfrom netutil.client import Client, NetUtilError\n"
        "try:\n    with Client(timeout_seconds=5) as client: name = client.pod().name\n"
        "except NetUtilError: sys.exit(0)\n"
        "sys.exit(name != sys.argv[1])\n"
    )
    with node.passing_pod() as (pod, container):
        done = container.spawn(
            [sys.executable, "-c", script, pod.name], stdout=subprocess.DEVNULL, stderr=None
        )
        time.sleep(random.choice((0, 0.2)))
        if random.random() < 0.3:
            container.kill()
        code = finish(done, 30)
        if code == 1:
            raise AssertionError(f"{pod.name} got another pod's name")


def connect_and_die(node: Node, random: Random) -> None:
    """Peers that exit before the agent has identified them."""
    node.run(_CONNECT_AND_DIE, str(random.uniform(0.3, 1.5)))


def flood_of_calls(node: Node, random: Random) -> None:
    """Eight clients at full speed."""
    method = random.choice(("all", "cpu", "environment", "interfaces"))
    node.run(_FLOOD, str(random.uniform(0.5, 2)), method)


def burst_of_connections(node: Node, random: Random) -> None:
    """More connections than a pod may have."""
    node.run(_MANY_CONNECTIONS, str(random.uniform(0.1, 1)))


def slow_bytes(node: Node, random: Random) -> None:
    """A preface that takes its time."""
    node.run(_SLOW_BYTES, str(random.uniform(0.5, 3)))


def frames_by_hand(node: Node, random: Random) -> None:
    """Requests that no gRPC library sends."""
    nameless = "path", b"/v1alpha.NetUti\xe2/GetCPUInfo".hex()
    argv = raw_calls.command(*random.choice((nameless, ("misspelt",), ("endless",))))
    finish(node.hostile.spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), 30)


PROGRAMS = tuple(
    (f"tests.support.attacks.{module}", attack, *words)
    for module, table, words in (
        ("frame_floods", FLOODS, ("4",)),
        ("header_floods", HEADER_FLOODS, ("4",)),
        ("window_floods", WINDOW_FLOODS, ("4",)),
        ("connection_floods", CONNECTION_FLOODS, ()),
    )
    for attack in table
)
"""Module and arguments of each attack of tests/support/attacks that runs until it is killed."""


def hostile_program(node: Node, random: Random) -> None:
    """One of the programs that are measured for fairness elsewhere."""
    argv = [sys.executable, "-m", *random.choice(PROGRAMS)]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = node.hostile.spawn(
        argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    finish(process, random.uniform(0.5, 2))


def unread_answers(node: Node, random: Random) -> None:
    """Calls whose answers are never read."""
    method = random.choice(("GetAll", "GetEnv", "GetCPUInfo"))
    argv = raw_calls.command("unread", method, "4", "64")
    process = node.hostile.spawn(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(0.5, 2))
    finish(process, 30)


def stalled_watch(node: Node, random: Random) -> None:
    """A stream whose reader stops reading, while what it watches changes."""
    watcher = Watcher(node.hostile, environment=random.random() < 0.5, slow=True)
    try:
        for mtu in random.sample(range(1300, 1500), 3):
            ip(node.hostile, f"link set eth0 mtu {mtu}")
            time.sleep(random.uniform(0.1, 0.5))
    finally:
        watcher.close()


def stopped_peer(node: Node, random: Random) -> None:
    """A client that is stopped with its call's answer in hand, and then killed."""
    process = node.hostile.spawn([sys.executable, "-c", _STOPPED], stderr=subprocess.DEVNULL)
    time.sleep(random.uniform(0.5, 2))
    with suppress(ProcessLookupError):
        os.kill(process.host_pid, signal.SIGSTOP)
    process.kill()
    finish(process, 30)


def pids_of_others(node: Node, random: Random) -> None:
    """Numbers of processes that are not the caller's to read."""
    del random
    code = node.run(_PIDS)
    if code == 3:
        raise AssertionError("the hostile pod read another pod's environment")


def greedy_environment(node: Node, random: Random) -> None:
    """Variables that make much of little."""
    del random
    node.run(_GREEDY)


def kubelet_in_trouble(node: Node, random: Random) -> None:
    """A kubelet that fails, hangs, drips, lies or forgets every pod."""
    whole = list_json()
    answers: tuple[Answer, ...] = (
        *(
            status(500),
            status(401),
            silent,
            dripping(b"HTTP/1.1 200 OK\r\n"),
            truncated(whole * 99),
        ),
        *(body(b"<html>"), body(b'{"kind":"PodList"}'), body(whole), gzip_bomb(256 * 1024 * 1024)),
        *(body(b'{"kind":"PodList","items":[{}]}'), chunked([whole[:9]], whole=False)),
    )
    node.kubelet.answer = random.choice(answers)
    try:
        time.sleep(random.uniform(0.5, 4))
    finally:
        node.kubelet.answer = node.answer_pods
        node.kubelet.drop_connections()


def resources_come_and_go(node: Node, random: Random) -> None:
    """PodResources disappears for a while."""
    with node.lock:
        node.end_resources()
        time.sleep(random.uniform(0.2, 1))
        node.serve_resources()


def socket_deleted(node: Node, random: Random) -> None:
    """The socket's file is taken away; the agent or the attacker restores it."""
    path = node.lab.socket
    aside = path.with_name("aside")
    path.rename(aside)
    time.sleep(random.uniform(0.2, 3))
    if path.exists():
        aside.unlink()
    else:
        aside.rename(path)


def links_change(node: Node, random: Random) -> None:
    """Addresses of a namespace come and go, faster than anybody may watch them."""
    address = f"192.0.2.{random.randrange(1, 255)}/32"
    lines = (f"address replace {address} dev eth0", f"address del {address} dev eth0")
    ip(node.hostile, *lines * random.choice((1, 50)))


ATTACKS: tuple[Action, ...] = (
    pods_come_and_go,
    connect_and_die,
    flood_of_calls,
    burst_of_connections,
    slow_bytes,
    frames_by_hand,
    unread_answers,
    stalled_watch,
    stopped_peer,
    pids_of_others,
    greedy_environment,
    links_change,
    hostile_program,
)
"""Several at once."""
FAULTS: tuple[Action, ...] = (
    kubelet_in_trouble,
    resources_come_and_go,
    socket_deleted,
    pods_come_and_go,
)
"""One after the other: two would undo each other."""
