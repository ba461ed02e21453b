"""Waiting for an interface, as an init container does, and the command that watches."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import grpc
import pytest
from netutil.client import (
    AsyncClient,
    Client,
    FailedPrecondition,
    Interface,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from netutil.client.cli.exit_codes import Exit
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.devices import everything
from tests.support.fakes.agent import FakeAgent, Refusal, serving
from tests.unit.client.command import Netutil

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
RESTARTING = Refusal(grpc.StatusCode.UNAVAILABLE, reason="AGENT_RESTARTING")


async def wait(kind: str, path: str, interface: str, timeout_seconds: float = 20.0) -> Interface:
    if kind == "async":
        async with AsyncClient(path) as client:
            return await client.wait_for_interface(interface, timeout_seconds)

    def in_thread() -> Interface:
        with Client(path) as client:
            return client.wait_for_interface(interface, timeout_seconds)

    return await asyncio.to_thread(in_thread)


def appeared(interface: str) -> api.WatchResponse:
    facts = everything()
    facts.interfaces.interfaces.add(
        name=interface, network=api.NetworkStatus(name="shop/late", interface=interface)
    )
    return api.WatchResponse(snapshot=facts, version=2, changed=["interfaces"])


def later(what: Any, seconds: float = 0.2) -> None:
    threading.Timer(seconds, what).start()


@KINDS
async def test_an_interface_that_is_there_is_returned_at_once(kind: str, agent: FakeAgent) -> None:
    name = agent.interfaces.interfaces[0].name
    assert (await wait(kind, agent.path, name)).name == name


@KINDS
async def test_an_interface_that_comes_ends_the_wait(kind: str, agent: FakeAgent) -> None:
    later(lambda: agent.news.put(appeared("net9")))
    found = await wait(kind, agent.path, "net9")
    assert found.network is not None and found.network.name == "shop/late"


@KINDS
async def test_an_agent_that_restarts_does_not_end_the_wait(kind: str, socket_path: str) -> None:
    first, second = FakeAgent(socket_path), FakeAgent(socket_path)
    second.everything.CopyFrom(appeared("net9").snapshot)
    with serving(first):
        waiting = asyncio.create_task(wait(kind, socket_path, "net9"))
        while not first.asked:  # noqa: ASYNC110 - another thread asks
            await asyncio.sleep(0.01)
        first.news.put(RESTARTING)
        await asyncio.sleep(0.1)
    with serving(second):
        assert (await waiting).name == "net9"


@KINDS
async def test_a_vain_wait_lists_the_interfaces_of_the_pod(kind: str, agent: FakeAgent) -> None:
    with pytest.raises(NotFound) as raised:
        await wait(kind, agent.path, "net9", 0.5)
    assert raised.value.reason == "INTERFACE_NOT_FOUND"
    assert "within 0.5 s; the pod has: eth0" in raised.value.message


@KINDS
async def test_a_vain_wait_says_that_the_node_s_links_are_not_listed(
    kind: str, agent: FakeAgent
) -> None:
    agent.everything.interfaces.host_network = True
    for _ in range(2):
        agent.everything.interfaces.interfaces.add(name="net1")
    with pytest.raises(NotFound, match="which are not listed") as raised:
        await wait(kind, agent.path, "net9", 0.5)
    assert raised.value.message.count("net1") == 1


@KINDS
async def test_a_vain_wait_raises_the_error_of_the_annotation(kind: str, agent: FakeAgent) -> None:
    agent.everything.ClearField("interfaces")
    agent.everything.errors.add(
        part="interfaces",
        code="FAILED_PRECONDITION",
        reason="NETWORK_STATUS_MALFORMED",
        message="It breaks.",
    )
    with pytest.raises(FailedPrecondition, match="It breaks"):
        await wait(kind, agent.path, "net9", 0.5)


@KINDS
async def test_the_wait_ends_with_an_error_without_an_agent(kind: str, directory: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        await wait(kind, f"{directory}/net.sock", "net9", 0.6)
    assert raised.value.reason == "SOCKET_MISSING"
    assert time.monotonic() - begun < 10


@KINDS
async def test_a_refusal_ends_it_at_once(kind: str, agent: FakeAgent) -> None:
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, reason="NOT_A_POD")
    agent.refusals.append(refusal)
    with pytest.raises(PermissionDenied):
        await wait(kind, agent.path, "net9", 60)


@KINDS
async def test_an_empty_name_and_a_timeout_of_nothing_are_refused(
    kind: str, agent: FakeAgent
) -> None:
    with pytest.raises(InvalidArgument):
        await wait(kind, agent.path, "")
    with pytest.raises(ValueError, match="positive"):
        await wait(kind, agent.path, "net1", 0)


def test_the_command_waits_and_prints_that_network(netutil: Netutil, agent: FakeAgent) -> None:
    name = agent.network_status.status[1].interface
    done = netutil("network", "--wait", f"INTERFACE={name}", "--timeout", "20s", "-o", "json")
    assert (done.code, done.err) == (Exit.OK, "")
    assert [one["interface"] for one in json.loads(done.out)["status"]] == [name]
    done = netutil("interfaces", "--wait", agent.interfaces.interfaces[0].name, "-o", "json")
    assert done.code == Exit.OK


def test_a_live_interface_without_a_report_is_no_error(netutil: Netutil, agent: FakeAgent) -> None:
    for one in (agent.everything.interfaces, agent.interfaces):
        one.interfaces.add(name="net9", link=api.Link(index=9))
    done = netutil("network", "--wait", "INTERFACE=net9", "-o", "json")
    assert (done.code, json.loads(done.out)["status"]) == (Exit.OK, [])


def test_a_network_without_a_reported_name_is_that_of_its_link(
    netutil: Netutil, agent: FakeAgent
) -> None:
    network = api.NetworkStatus(name="cbr0", ips=["10.244.0.5"])
    for one in (agent.everything.interfaces, agent.interfaces):
        one.interfaces.add(name="net9", network=network, link=api.Link(index=9))
    done = netutil("network", "--wait", "INTERFACE=net9", "-o", "json")
    assert [one["name"] for one in json.loads(done.out)["status"]] == ["cbr0"]


def test_a_broken_annotation_is_an_error_not_an_empty_list(
    netutil: Netutil, agent: FakeAgent
) -> None:
    for one in (agent.everything.interfaces, agent.interfaces):
        one.interfaces.add(name="net9", link=api.Link(index=9))
        one.network_error.CopyFrom(malformed())
    done = netutil("network", "--wait", "INTERFACE=net9")
    assert (done.code, done.out) == (Exit.FAILED, "")
    assert "It breaks." in done.err


def malformed() -> api.PartError:
    return api.PartError(
        part="network_status",
        code="FAILED_PRECONDITION",
        reason="NETWORK_STATUS_MALFORMED",
        message="It breaks.",
    )


@KINDS
async def test_a_vain_wait_raises_the_error_that_hides_the_interface(
    kind: str, agent: FakeAgent
) -> None:
    agent.everything.interfaces.network_error.CopyFrom(malformed())
    with pytest.raises(FailedPrecondition, match="It breaks"):
        await wait(kind, agent.path, "net9", 0.5)


@KINDS
@pytest.mark.parametrize("name", ["device_info_error", "claims_error"])
async def test_a_vain_wait_raises_the_error_of_a_piece(
    kind: str, name: str, agent: FakeAgent
) -> None:
    getattr(agent.everything.interfaces, name).CopyFrom(malformed())
    with pytest.raises(FailedPrecondition, match="It breaks"):
        await wait(kind, agent.path, "net9", 0.5)


@pytest.mark.parametrize("command", ["network", "interfaces"])
def test_a_wait_for_what_such_an_annotation_may_name_fails(
    command: str, netutil: Netutil, agent: FakeAgent
) -> None:
    agent.everything.interfaces.device_info_error.CopyFrom(malformed())
    done = netutil(command, "--wait", "INTERFACE=net9", "--timeout", "300ms")
    assert (done.code, done.out) == (Exit.FAILED, "")
    assert "It breaks." in done.err


def test_a_live_link_beside_a_broken_annotation_has_no_network(
    netutil: Netutil, agent: FakeAgent
) -> None:
    for one in (agent.everything.interfaces, agent.interfaces):
        one.interfaces.add(name="net9", link=api.Link(index=9))
        one.device_info_error.CopyFrom(malformed())
    done = netutil("network", "--wait", "INTERFACE=net9")
    assert (done.code, done.out) == (Exit.FAILED, "")


def test_a_wait_without_a_result_has_the_exit_code_of_not_found(netutil: Netutil) -> None:
    done = netutil("network", "--wait", "INTERFACE=net9", "--timeout", "300ms")
    assert done.code == Exit.NOT_FOUND
    assert done.err.startswith("netutil: interface net9 did not appear within 0.3 s")


@pytest.mark.parametrize(
    "arguments",
    [
        ["network", "--wait", "NAME=net1"],
        ["network", "--wait", "INTERFACE="],
        ["network", "net2", "--wait", "INTERFACE=net1"],
        ["network", "--wait", "INTERFACE=net1", "--pid", "1"],
        ["network", "--wait", "INTERFACE=net1", "--timeout", "60x"],
        ["cpu", "--wait", "INTERFACE=net1"],
        ["watch", "-o", "yaml"],
        ["watch", "--pid", "1"],
    ],
)
def test_a_senseless_command_line_is_a_usage_error(netutil: Netutil, arguments: list[str]) -> None:
    assert netutil(*arguments).code == Exit.USAGE


def test_watch_prints_a_line_for_each_value_that_changes(
    netutil: Netutil, agent: FakeAgent
) -> None:
    facts = everything()
    facts.cpu.cpuset = "7"
    facts.interfaces.interfaces[0].link.addresses.add(address="192.0.2.9/24", scope="global")
    agent.news.put(api.WatchResponse(snapshot=facts, version=2, changed=["cpu", "interfaces"]))
    done = netutil("watch", "--timeout", "2s")
    assert (done.code, done.err) == (Exit.OK, "")
    first, *more = [line.partition(" ")[2] for line in done.out.splitlines()]
    assert first.startswith("watching ")
    assert "cpu.cpuset: 0-3,8 -> 7" in more
    assert any("eth0" in line and line.endswith("- -> 192.0.2.9/24") for line in more)


@pytest.mark.parametrize(("more", "is_shown"), [((), False), (("--env",), True)])
def test_watch_prints_variables_with_env_only(
    netutil: Netutil, agent: FakeAgent, more: tuple[str, ...], is_shown: bool
) -> None:
    facts = everything()
    facts.environment.envs["LATE"] = "value-7"
    facts.cpu.cpuset = "7"
    agent.news.put(api.WatchResponse(snapshot=facts, version=2, changed=["cpu", "environment"]))
    out = netutil("watch", "--timeout", "2s", *more).out
    assert "cpu.cpuset: 0-3,8 -> 7" in out
    assert ("environment.envs.LATE: - -> value-7" in out) is is_shown
    assert ("value-7" in out) is is_shown


def test_watch_prints_a_json_object_on_a_line_for_each_snapshot(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.news.put(appeared("net9"))
    done = netutil("watch", "--timeout", "2s", "-o", "json")
    first, second = map(json.loads, done.out.splitlines())
    assert (first["version"], first["changed"]) == (1, [])
    assert (second["version"], second["changed"]) == (2, ["interfaces"])
    assert second["snapshot"]["environment"] == first["snapshot"]["environment"]


def test_watch_goes_on_with_the_agent_that_follows(netutil: Netutil, agent: FakeAgent) -> None:
    def follow() -> None:
        while not agent.asked:
            time.sleep(0.01)
        time.sleep(0.5)  # the first snapshot is on its way
        agent.everything.cpu.cpuset = "5"
        agent.news.put(RESTARTING)

    following = threading.Thread(target=follow)
    following.start()
    done = netutil("watch", "--timeout", "4s")
    following.join()
    assert done.code == Exit.OK
    assert done.err.startswith("netutil: the agent's sentence")
    assert done.out.count("\n") == 2
    assert "cpu.cpuset: 0-3,8 -> 5" in done.out


def test_watch_ends_when_the_pod_goes_or_is_refused(netutil: Netutil, agent: FakeAgent) -> None:
    agent.news.put(Refusal(grpc.StatusCode.NOT_FOUND, reason="POD_GONE"))
    assert netutil("watch").code == Exit.NOT_FOUND
    agent.refusals.append(Refusal(grpc.StatusCode.PERMISSION_DENIED, reason="NOT_A_POD"))
    assert netutil("watch").code == Exit.NOT_PERMITTED
