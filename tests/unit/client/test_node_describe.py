"""`netutil node describe`, run in this process against a double of the agent."""

from __future__ import annotations

import json

import pytest
import yaml
from netutil.client.cli.render.host import described_node
from netutil.client.cli.render.tables import Style, render
from netutil.client.models.node import DescribedNode
from netutil.client.rpc.convert import result
from netutil.v1alpha import node_pb2

from tests.support.answers import node as node_answers
from tests.support.fakes.agent import FakeAgent
from tests.unit.client.command import Netutil, rows_of

ESCAPED = r"veth\x1b[31m"


def test_the_node_is_shown_with_its_interfaces(netutil: Netutil, agent: FakeAgent) -> None:
    node, devices, interfaces = netutil("node", "describe").out.split("\n\n")
    assert rows_of(node) == [
        ["NODE"],
        ["node", "node-1"],
        ["kernel", "6.1.0-28-amd64"],
        ["cpus_online", "5"],
        ["cores_online", "3"],
        *(row for row in rows_of(node)[5:]),
    ]
    assert [row[0] for row in rows_of(node)[5:]] == ["cpus_offline", "sockets", "numa_nodes"]
    assert devices.splitlines()[2].split() == ["0000:3b:00.0", "ice", "0", "-", "-", "ens1f0"]
    title, headers, hardware, veth = (line.split() for line in interfaces.splitlines())
    assert (title, headers[:3]) == (["INTERFACES"], ["NAME", "KIND", "STATE"])
    assert hardware == ["ens1f0", "0000:3b:00.0", "UP", "9000", "25000", "-", *"78000030"]
    assert veth == [ESCAPED, "veth", "UP", "1500", "-", "cni0", str(2**63), *"0005100"]
    assert agent.asked[-1] == node_pb2.DescribeNodeRequest(interfaces=True)


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("index", "ens1f0"),
        ("traffic", ESCAPED),
        ("errors", ESCAPED),
        ("dropped", "ens1f0"),
        ("name", "ens1f0"),
    ],
)
def test_interfaces_are_in_order(netutil: Netutil, order: str, first: str) -> None:
    out = netutil("node", "describe", "--sort", order).out
    assert out.partition("\n\nINTERFACES\n")[2].splitlines()[1].split()[0] == first


def test_documents_have_all_of_it(netutil: Netutil) -> None:
    out = netutil("node", "describe", "-o", "json").out
    assert json.loads(out) == yaml.safe_load(netutil("node", "describe", "-o", "yaml").out)
    found = json.loads(out)
    assert found["cpu_counts"] == {"logical": 5, "cores": 3}
    hardware, veth = found["host_interfaces"]["interfaces"]
    assert hardware["speed_megabits"] == 25000
    assert (veth["speed_megabits"], veth["counters"]["rx_bytes"]) == (None, 2**63)


def test_the_table_says_what_is_not_known(netutil: Netutil, agent: FakeAgent) -> None:
    found = agent.described_node.host_interfaces
    del found.interfaces[:]
    found.interfaces.add(name="eth0").counters.rx_bytes = 1
    found.truncated = True
    found.error.reason, found.error.message = "NETWORK_NAMESPACE_NOT_READABLE", "It is closed."
    agent.described_node.cpu_counts.Clear()
    out = netutil("node", "describe").out
    assert "\ncpus_online   -\n" in out
    assert out.splitlines()[-3].split() == ["eth0", *"-----", "1", *"0000000"]
    assert out.splitlines()[-2:] == [
        "(there are more interfaces than are read)",
        "(interfaces not known: It is closed. [NETWORK_NAMESPACE_NOT_READABLE])",
    ]
    del found.interfaces[:]
    document = json.loads(netutil("node", "describe", "-o", "json").out)
    assert document["host_interfaces"]["interfaces"] is None


def test_an_older_agent_is_said_to_know_none(netutil: Netutil, agent: FakeAgent) -> None:
    agent.described_node.ClearField("host_interfaces")
    out = netutil("node", "describe", "--sort", "errors").out
    assert out.endswith("(not known: the agent is older than this command)\n")


@pytest.mark.parametrize("width", [80, 110, 130, 160, None])
def test_the_table_fits_the_terminal(width: int | None) -> None:
    node = result(DescribedNode, node_answers.described_node())
    shown = render(described_node(node, width), Style(width=width))
    (headers,) = (line for line in shown.splitlines() if line.startswith("NAME "))
    assert ("RX PKTS" in headers) == (width is None or width >= 150)
    assert "RX ERR" in headers
