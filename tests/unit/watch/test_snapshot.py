"""The causes and the rate of snapshots; the agent's and the client's view agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from google.protobuf.message import Message
from netutil.agent.errors import AgentError, Reason, Unavailable
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages.encode import PARTS
from netutil.agent.watch import diff
from netutil.agent.watch.diff import Digests, are_short, changed
from netutil.agent.watch.stream import MIN_SECONDS, SnapshotThrottle
from netutil.client import All
from netutil.client.models import observation
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.core import observed_at
from tests.support.answers.devices import everything, part_error

Change = Callable[[api.AllResponse], None]


def digests(facts: api.AllResponse, before: Digests | None = None) -> Digests:
    whole: Message = facts
    parts: dict[str, EncodedMessage | AgentError] = {
        name: EncodedMessage(getattr(whole, name).SerializeToString())
        for name in PARTS
        if whole.HasField(name)
    }
    for error in facts.errors:
        parts[error.part] = Unavailable(cast(Reason, error.reason), error.message)
    return diff.digests(parts, before or {})


def set_counters(facts: api.AllResponse) -> None:
    for interface in facts.interfaces.interfaces:
        if interface.HasField("link"):
            interface.link.counters.rx_bytes += 1
            interface.link.counters.tx_packets += 1


def set_times(facts: api.AllResponse) -> None:
    for part in (facts.pod, facts.network_status, facts.interfaces, facts.resources):
        moment = observed_at()
        moment.seconds += 10
        part.observed_at.CopyFrom(moment)


def set_usage(facts: api.AllResponse) -> None:
    facts.hugepages.usage[0].usage_bytes += 2**21
    facts.hugepages.usage[0].failures += 1
    facts.hugepages.pools[0].free_bytes -= 2**21
    facts.hugepages.pools[0].total_bytes += 2**30
    facts.hugepages.pools[0].numa_nodes[0].free_bytes = 1


NESTED = ("network_error", "allocated_error", "link_error", "device_info_error", "pci_error")


@pytest.mark.parametrize("name", NESTED)
def test_a_failed_pieces_reason_is_a_change_its_message_none(
    name: str,
) -> None:
    before, now = everything(), everything()
    for facts, seconds in ((before, 1), (now, 2)):
        error = getattr(facts.interfaces, name)
        error.CopyFrom(part_error(name))
        error.message = f"It took {seconds} s."
    assert changed(digests(before), digests(now)) == ()
    assert observation.changed_parts(result(All, before), result(All, now)) == ()
    getattr(now.interfaces, name).reason = "READ_TIMED_OUT"
    assert changed(digests(before), digests(now)) == ("interfaces",)
    assert observation.changed_parts(result(All, before), result(All, now)) == ("interfaces",)


@pytest.mark.parametrize("change", [set_counters, set_times, set_usage])
def test_counters_that_always_change_are_no_change(change: Change) -> None:
    before, now = everything(), everything()
    change(now)
    assert before != now
    assert changed(digests(before), digests(now)) == ()
    assert observation.changed_parts(result(All, before), result(All, now)) == ()


def add_address(facts: api.AllResponse) -> None:
    (link, *_) = (one.link for one in facts.interfaces.interfaces if one.HasField("link"))
    link.addresses.add(address="192.0.2.9/24", scope="global")


def annotate(facts: api.AllResponse) -> None:
    facts.pod.annotations["example.com/new"] = "1"


def move(facts: api.AllResponse) -> None:
    facts.cpu.cpuset = "1"


def allocate(facts: api.AllResponse) -> None:
    facts.resources.devices[0].ID = "another"


def limit(facts: api.AllResponse) -> None:
    facts.hugepages.usage[1].limit_bytes = 1


CHANGES = {
    add_address: "interfaces",
    annotate: "pod",
    move: "cpu",
    allocate: "resources",
    limit: "hugepages",
}


@pytest.mark.parametrize(("change", "part"), CHANGES.items())
def test_a_change_names_its_part(change: Change, part: str) -> None:
    before, now = everything(), everything()
    change(now)
    assert changed(digests(before), digests(now)) == (part,)
    assert observation.changed_parts(result(All, before), result(All, now)) == (part,)


def failed(reason: str, sentence: str) -> api.AllResponse:
    facts = everything()
    facts.ClearField("resources")
    facts.errors.add(part="resources", code="UNAVAILABLE", reason=reason, message=sentence)
    return facts


def test_a_failed_parts_reason_is_a_change_its_message_none() -> None:
    whole, first = everything(), failed("POD_RESOURCES_UNAVAILABLE", "After 1 s.")
    again, other = failed("POD_RESOURCES_UNAVAILABLE", "After 2 s."), failed("OTHER", "After 2 s.")
    for before, now, parts in (
        (whole, first, ("resources",)),
        (first, again, ()),
        (again, other, ("resources",)),
        (other, whole, ("resources",)),
    ):
        assert changed(digests(before), digests(now)) == parts
        assert observation.changed_parts(result(All, before), result(All, now)) == parts


def test_equal_bytes_of_a_part_have_a_digest_without_a_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = everything()
    before = digests(facts)
    with monkeypatch.context() as patched:
        patched.setattr(diff, "_KINDS", {})
        again = digests(facts, before)
    assert all(again[name] is before[name] for name in before)
    move(facts)
    assert changed(before, digests(facts, before)) == ("cpu",)


@pytest.mark.parametrize("change", [*CHANGES, set_counters, set_times, set_usage])
def test_earlier_values_do_not_change_a_digest(change: Change) -> None:
    facts = everything()
    before = digests(facts)
    change(facts)
    assert digests(facts, before) == digests(facts)


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("interfaces", "allocated_error"),
        ("interfaces", "start_error"),
        ("interfaces", "link_error"),
        ("resources", "pci_error"),
    ],
)
def test_a_shortage_for_a_part_is_seen_each_time(part: str, field: str) -> None:
    facts = everything()
    assert not are_short(digests(facts).values())
    getattr(getattr(facts, part), field).reason = Reason.AGENT_OUT_OF_RESOURCES
    before = digests(facts)
    assert are_short(before.values())
    assert are_short(digests(facts, before).values())
    assert are_short(digests(failed(Reason.AGENT_OUT_OF_RESOURCES, "No more.")).values())


def test_every_part_of_the_api_is_watched() -> None:
    names = [*api.AllResponse.DESCRIPTOR.fields_by_name]
    assert [*PARTS] == [name for name in names if name != "errors"]
    assert observation.PARTS == PARTS


class Time:
    """A clock that goes on only in sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_watcher_gets_at_most_ten_snapshots_a_second() -> None:
    time = Time()
    pace = SnapshotThrottle(time.clock, time.sleep)
    made_at = -float("inf")
    for _ in range(11):
        made_at = await pace.acquire("pod", made_at)
    assert time.now - 1000.0 == pytest.approx(10 * MIN_SECONDS)


async def test_64_watchers_of_a_pod_hear_of_one_change_at_once() -> None:
    time = Time()
    pace = SnapshotThrottle(time.clock, time.sleep)
    for _ in range(64):
        await pace.acquire("pod", -float("inf"))
    assert time.now == 1000.0


async def test_a_pod_that_changes_endlessly_gets_20_snapshots_a_second() -> None:
    time = Time()
    pace = SnapshotThrottle(time.clock, time.sleep)
    for _ in range(64 + 200):
        await pace.acquire("hostile", -float("inf"))
    assert time.now - 1000.0 == pytest.approx(10, rel=0.1)
    quiet = time.now
    await pace.acquire("other", -float("inf"))
    assert time.now == quiet


async def test_watches_that_are_given_up_while_they_wait_leave_no_debt() -> None:
    time = Time()

    async def given_up(_: float) -> None:
        raise asyncio.CancelledError

    pace = SnapshotThrottle(time.clock, given_up)
    for _ in range(64):
        await pace.acquire("pod", -float("inf"))
    for _ in range(1000):
        with pytest.raises(asyncio.CancelledError):
            await pace.acquire("pod", -float("inf"))
    time.now += 0.05
    assert await pace.acquire("pod", -float("inf")) == time.now


def test_a_large_environment_is_compared_without_being_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = api.AllResponse(environment=api.EnvResponse(envs={"A": "x" * 200_000}))
    after = api.AllResponse(environment=api.EnvResponse(envs={"A": "y" + "x" * 199_999}))
    monkeypatch.setattr(diff, "_KINDS", {})
    first = digests(before)
    assert changed(first, digests(before, first)) == ()
    assert changed(first, digests(after, first)) == ("environment",)
