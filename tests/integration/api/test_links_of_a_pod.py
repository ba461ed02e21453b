"""A pod gets its links as `ip -j` shows them inside it, however they change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.support.as_ip import links_of_ip
from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import ask, links_are_refused, netutil

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]

CALLS = 2_000
ASK_OFTEN = """
import asyncio, json, sys
from netutil.client import AsyncClient
async def main(calls, at_once=8):
    async with AsyncClient(timeout_seconds=60) as agent:
        async def some():
            for _ in range(calls // at_once):
                assert (await agent.interfaces()).interfaces
        await asyncio.gather(*(some() for _ in range(at_once)))
asyncio.run(main(int(sys.argv[1])))
print(json.dumps(None))
"""
STEPS = [
    [
        "link add macvlan0 link eth0 type macvlan mode bridge",
        "link add br0 type bridge",
        "link add port0 type veth peer name port1",
        "link set port0 master br0",
        "link add vxlan0 type vxlan id 42 remote 192.0.2.9 dstport 4789 dev eth0",
        "tuntap add tap0 mode tap",
        "address add 192.0.2.5/24 dev eth0",
        "address add 2001:db8::5/64 dev eth0 nodad",
        "route add default via 192.0.2.1 metric 50",
        "route add default via inet6 2001:db8::1 dev eth0",
    ],
    ["link set br0 up", "link set port0 up", "link set port1 up mtu 1300"],
    ["link set macvlan0 address 02:00:00:00:00:99", "address add 192.0.2.8/32 dev macvlan0"],
    ["route replace default via 192.0.2.2 metric 50", "address delete 2001:db8::5/64 dev eth0"],
    ["link delete vxlan0", "link set port0 nomaster"],
]


def ip(container: LabContainer, *arguments: str, lines: str = "") -> Any:
    enter = ["nsenter", "-t", str(container.pid), "-n", "ip", "-j", "-d", "-s"]
    done = subprocess.run(
        [*enter, *arguments], check=False, input=lines.encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def answered(container: LabContainer) -> list[dict[str, Any]]:
    interfaces = netutil(container, "interfaces")["interfaces"]
    links = [{"name": one["name"], **one["link"]} for one in interfaces]
    return sorted(links, key=lambda link: int(link["index"]))


def shown(container: LabContainer) -> list[dict[str, Any]]:
    return [one for one in links_of_ip(lambda *words: ip(container, *words)) if one["name"] != "lo"]


def counters_of(links: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [link.pop("counters") for link in links]


def test_each_change_appears_in_every_field_as_ip_shows_it(container: LabContainer) -> None:
    if links_are_refused(container):
        return
    for step in STEPS:
        ip(container, "-batch", "-", lines="".join(f"{line}\n" for line in step))
        before, answer, after = settled(container)
        least, counted, most = map(counters_of, (before, answer, after))
        assert answer == before
        for low, count, high in zip(least, counted, most, strict=True):
            assert count.keys() == low.keys()
            assert all(low[name] <= count[name] <= high[name] for name in count)


def settled(container: LabContainer) -> tuple[list[dict[str, Any]], ...]:
    """Return ip's links, the agent's, and ip's again, once the kernel has settled.

    It sets states and link-local addresses a moment after a link was set up.
    """
    deadline = time.monotonic() + 30
    while True:
        found = (shown(container), answered(container), shown(container))
        first, _, last = ([{**link, "counters": None} for link in links] for links in found)
        if first == last or time.monotonic() > deadline:
            return found


def test_names_with_terminal_codes_are_printed_harmless(container: LabContainer) -> None:
    if links_are_refused(container):
        return
    name = "e\x1b[31m\x9b2J"
    ip(container, "link", "add", name, "type", "bridge")
    ip(container, "link", "set", "dev", name, "alias", "\x1b]0;alias\x07")
    ip(container, "link", "property", "add", "dev", name, "altname", "\x1b[2Jaltname")
    ip(container, "link", "add", "macvlan0", "link", name, "type", "macvlan")
    links = {one["name"]: one["link"] for one in netutil(container, "interfaces")["interfaces"]}
    assert links["macvlan0"]["parent"] == name
    shown_in = (["interfaces"], ["interfaces", name], ["all"])
    documents = (["interfaces", "-o", "json"], ["interfaces", "-o", "yaml"])
    for arguments in (*shown_in, *documents):
        done = container.run([sys.executable, "-m", "netutil.client", *arguments])
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode().replace("\n", "")
        assert "31m" in text and text.isprintable()


def test_too_many_links_are_an_error_of_that_part_alone(container: LabContainer) -> None:
    if links_are_refused(container):
        return
    lines = "".join(f"link add link eth0 many{n} type macvlan\n" for n in range(300))
    ip(container, "-batch", "-", lines=lines)
    answer = netutil(container, "interfaces")
    assert answer["link_error"]["reason"] == "NETWORK_NAMESPACE_TOO_LARGE"
    assert "302 links" in answer["link_error"]["message"]
    (reported,) = answer["interfaces"]
    assert reported["network"]["ips"] == [container.pod.ip] and reported["link"] is None
    everything = netutil(container, "all")
    assert everything["interfaces"]["link_error"]["reason"] == "NETWORK_NAMESPACE_TOO_LARGE"
    assert everything["cpu"] is not None


def test_a_recreated_container_has_the_links_of_the_sandbox(
    lab: Lab, container: LabContainer
) -> None:
    if links_are_refused(container):
        return
    before = answered(container)
    container.kill()
    again = container.pod.container("app")
    lab.write_pod_list()
    after = answered(again)
    for links in (before, after):
        counters_of(links)
    assert after == before


def held(pid: int) -> list[str]:
    """Return the open files of a process by kind: "socket", "/dev/null", "net"."""
    directory, found = f"/proc/{pid}/fd", []
    for one in os.listdir(directory):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"{directory}/{one}").partition(":")[0])
    return sorted(found)


def test_thousands_of_calls_leave_no_descriptor(lab: Lab, container: LabContainer) -> None:
    (agent,) = lab.agents

    def settled(expected: list[str], hidden: str) -> list[str]:
        """Return the open files once the network of the ended caller is released."""
        deadline = time.monotonic() + 10
        while True:
            found = [one for one in held(agent.pid) if not hidden or hidden not in one]
            if found == expected or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    first = held(agent.pid)
    ask(container, "-c", ASK_OFTEN, "8")
    # Beside cgroups, which stay, as does the pin of the container's first process: two descriptors.
    pinned = sorted([*first, f"/proc/{container.pid}", "anon_inode"])
    assert settled(pinned, hidden="/sys/fs/cgroup/") == pinned
    before = held(agent.pid)
    ask(container, "-c", ASK_OFTEN, str(CALLS), timeout=300)
    after = settled(before, hidden="")
    assert after == before
