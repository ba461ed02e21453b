"""`netutil node map` against a double: what it asks, and what it does with a pod that fails."""

from __future__ import annotations

import grpc
import pytest
from netutil.client.cli.exit_codes import Exit
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.support.answers import node as node_answers
from tests.support.fakes.agent import FakeAgent, Refusal
from tests.support.svg_reader import read
from tests.unit.client.command import Netutil


@pytest.mark.parametrize(
    ("output", "begins"), [("svg", "<svg "), ("html", "<!DOCTYPE html>"), ("dot", "graph map {")]
)
def test_each_form_goes_to_the_standard_output(netutil: Netutil, output: str, begins: str) -> None:
    ended = netutil("node", "map", "-o", output)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(begins)


def test_svg_is_the_default(netutil: Netutil) -> None:
    assert netutil("node", "map").out == netutil("node", "map", "-o", "svg").out


def described(name: str) -> node_pb2.DescribePodResponse:
    pod = node_answers.described_pod()
    pod.pod.name = name
    return pod


def test_one_question_asks_for_all_pods(netutil: Netutil, agent: FakeAgent) -> None:
    names = [f"web-{number:02}" for number in range(30)]
    agent.described_pods = list(map(described, names))
    drawn = read(netutil("node", "map").out)
    assert [type(one).__name__ for one in agent.asked] == [
        "DescribeNodeRequest",
        "DescribePodsRequest",
    ]
    found = [thing.name for thing in drawn.things if thing.name is not None]
    assert found == [f"default/{name}" for name in names]


def test_a_node_without_pods_is_drawn(netutil: Netutil, agent: FakeAgent) -> None:
    agent.described_pods = []
    drawn = read(netutil("node", "map").out)
    assert [thing for thing in drawn.things if thing.name is not None] == []
    assert "0 pods" in drawn.loose[1].what


@pytest.mark.parametrize("part", ["identity", "processes"])
def test_a_pod_of_unreadable_processes_is_drawn_with_the_reason(
    netutil: Netutil, agent: FakeAgent, part: str
) -> None:
    pod = described("web-0")
    del pod.containers[1:]
    pod.containers[0].ClearField("cpu")
    pod.containers[0].errors.add(part=part, reason="CGROUPS_DISAGREE")
    agent.described_pods = [pod]
    text = read(netutil("node", "map").out).pod("default/web-0").text
    assert "app: pool" in text and f"not known: {part}: CGROUPS_DISAGREE" in text


@pytest.mark.parametrize("name", ["network", "link", "device_info", "pci"])
@pytest.mark.parametrize("output", ["svg", "dot"])
def test_a_missing_piece_is_reported_beside_links_and_devices(
    netutil: Netutil, agent: FakeAgent, name: str, output: str
) -> None:
    pod = described("web-0")
    error = getattr(pod.interfaces, f"{name}_error")
    error.part, error.reason = name, "NETWORK_STATUS_MALFORMED"
    agent.described_pods = [pod]
    out = netutil("node", "map", "-o", output).out
    assert f"not known: {name}: NETWORK_STATUS_MALFORMED" in out
    assert "0000:3b:02.1" in out


def test_a_missing_part_is_reported(netutil: Netutil, agent: FakeAgent) -> None:
    pod = described("web-0")
    pod.ClearField("interfaces")
    pod.errors.add(part="interfaces", reason="READ_TIMED_OUT")
    agent.described_pods = [pod]
    text = read(netutil("node", "map").out).pod("default/web-0").text
    assert "not known: interfaces: READ_TIMED_OUT" in text


def test_a_device_that_is_a_guess_is_drawn_as_one(netutil: Netutil, agent: FakeAgent) -> None:
    pod = described("web-0")
    pod.interfaces.interfaces[1].device_source = netutil_pb2.DEVICE_SOURCE_ORDER
    agent.described_pods = [pod]
    for output in ("svg", "dot"):
        assert "(guess)" in netutil("node", "map", "-o", output).out


def test_a_picture_that_breaks_off_is_none(netutil: Netutil, agent: FakeAgent) -> None:
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "It stops.", reason="AGENT_RESTARTING")
    agent.described_pods = [described("web-0"), refusal]
    ended = netutil("node", "map")
    assert ended.out == "" and "It stops." in ended.err and ended.code != 0


def test_a_missing_part_of_the_node_is_reported(netutil: Netutil, agent: FakeAgent) -> None:
    agent.described_node.errors.add(part="network_devices", message="It took too long.")
    drawn = read(netutil("node", "map").out)
    assert "not known: network_devices: It took too long." in {t.text for t in drawn.of("missing")}


def test_a_missing_list_is_an_error_in_place_of_a_map(netutil: Netutil, agent: FakeAgent) -> None:
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "Root only.", reason="NOT_AN_OPERATOR")
    agent.refused_methods["DescribePodsRequest"] = refusal
    ended = netutil("node", "map")
    assert ended.out == "" and "Root only." in ended.err and ended.code != 0


def test_a_map_is_neither_a_table_nor_yaml(netutil: Netutil) -> None:
    ended = netutil("node", "map", "-o", "yaml")
    assert ended.code == 2 and "invalid choice: 'yaml'" in ended.err


def test_a_graph_of_too_many_pods_is_refused_in_favour_of_svg(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.described_pods = [described(f"web-{number}") for number in range(51)]
    ended = netutil("node", "map", "-o", "dot")
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert ended.err.startswith(
        "netutil: a graph of 51 pods is not readable [TOO_MANY_PODS_FOR_DOT]"
    )
    assert "-o svg" in ended.err
    assert netutil("node", "map").code == 0
    agent.described_pods.pop()
    assert netutil("node", "map", "-o", "dot").code == 0
