"""Answers that are kept as bytes and put together are what protobuf itself would make of them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.collect.pod_networks import networks_of
from netutil.agent.collect.results import (
    AskedCpus,
    CpuAmounts,
    Cpus,
    GivenDevices,
    GivenFunctions,
    Hugepages,
)
from netutil.agent.errors import AgentError, PermissionDenied, Reason, Unavailable
from netutil.agent.facts.cpu import CpuBandwidth, CpuFacts, CpuLimit
from netutil.agent.facts.hugepages import HugepagePool
from netutil.agent.facts.topology import Cpu
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.kubelet.podresources.model import ContainerResources
from netutil.agent.messages import convert, convert_devices, encode
from netutil.agent.messages.status import part_error
from netutil.agent.parsers.environment import Environment
from netutil.agent.pods.index import Match, index
from netutil.agent.pods.model import Pod
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.devices import everything
from tests.unit.pods.test_index import APP, NOW, UID, pod

NAMES = ("pod", "cpu", "environment", "network_status", "interfaces", "hugepages", "resources")
TEXTS = st.text(max_size=300)
ERRORS = st.builds(api.PartError, part=TEXTS, code=TEXTS, reason=TEXTS, advice=TEXTS)
PARTS = {
    # At most one entry of a map: their order is not fixed.
    "pod": st.builds(
        api.PodResponse,
        name=TEXTS,
        ips=st.lists(TEXTS),
        labels=st.dictionaries(TEXTS, TEXTS, max_size=1),
    ),
    "cpu": st.builds(
        api.CPUResponse,
        cpuset=TEXTS,
        quota_cores=st.none() | st.floats(allow_nan=False),
        cpuset_ids=st.lists(st.integers(0, 2**31 - 1)),
    ),
    "environment": st.builds(api.EnvResponse, envs=st.dictionaries(TEXTS, TEXTS, max_size=1)),
    "network_status": st.builds(
        api.NetworkStatusResponse,
        status=st.lists(st.builds(api.NetworkStatus, name=TEXTS, ips=st.lists(TEXTS))),
        device_info_error=st.none() | ERRORS,
    ),
    "interfaces": st.builds(api.InterfacesResponse, host_network=st.booleans()),
    "hugepages": st.builds(api.HugepagesResponse, spec_error=st.none() | ERRORS),
    "resources": st.builds(api.ResourceResponse, exclusive_cpus=TEXTS),
}
SOME = st.fixed_dictionaries({}, optional=PARTS)


@given(parts=SOME, errors=st.lists(ERRORS, max_size=4))
def test_joined_parts_are_the_bytes_that_protobuf_makes(
    parts: dict[str, Any], errors: list[api.PartError]
) -> None:
    fields = [(name, parts[name].SerializeToString()) for name in NAMES if name in parts]
    fields += [("errors", error.SerializeToString()) for error in errors]
    assert encode.join(api.AllResponse, fields) == (
        api.AllResponse(**parts, errors=errors).SerializeToString()
    )


@given(parts=SOME, errors=st.lists(ERRORS, max_size=4), seed=st.integers())
def test_the_order_of_the_parts_makes_no_difference(
    parts: dict[str, Any], errors: list[api.PartError], seed: int
) -> None:
    names = random.Random(seed).sample([*parts], len(parts))  # noqa: S311 - no secret
    fields = [("errors", error.SerializeToString()) for error in errors]
    fields += [(name, parts[name].SerializeToString()) for name in names]
    joined = api.AllResponse.FromString(encode.join(api.AllResponse, fields))
    assert joined == api.AllResponse(**parts, errors=errors)


@given(parts=SOME, version=st.integers(0, 2**64 - 1), names=st.lists(TEXTS))
def test_plain_fields_follow_the_joined_messages(
    parts: dict[str, Any], version: int, names: list[str]
) -> None:
    snapshot = api.AllResponse(**parts)
    joined = encode.join(api.WatchResponse, [("snapshot", snapshot.SerializeToString())])
    rest = api.WatchResponse(version=version, changed=names)
    whole = api.WatchResponse(snapshot=snapshot, version=version, changed=names)
    assert joined + rest.SerializeToString() == whole.SerializeToString()


def test_an_empty_part_is_there() -> None:
    joined = api.AllResponse.FromString(
        encode.join(api.AllResponse, [("pod", b""), ("environment", b"")])
    )
    assert joined.HasField("pod") and joined.HasField("environment") and not joined.HasField("cpu")
    assert encode.join(api.AllResponse, []) == b""


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152])
def test_parts_of_any_size_are_found_again(size: int) -> None:
    part = api.PodResponse(name="x" * size)
    joined = encode.join(api.AllResponse, [("pod", part.SerializeToString())])
    assert joined == api.AllResponse(pod=part).SerializeToString()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(api.AllResponse, "none"), (api.PodResponse, "name"), (api.PodResponse, "labels")],
)
def test_a_field_of_no_message_type_is_refused(kind: type[Message], name: str) -> None:
    with pytest.raises(KeyError):
        encode.join(kind, [(name, b"")])


def test_a_failed_part_is_an_entry_of_errors_in_api_order() -> None:
    facts = everything()
    denied: AgentError = PermissionDenied(Reason.PID_OUTSIDE_POD, "Not yours.")
    late = Unavailable(Reason.POD_LIST_UNAVAILABLE, "No list.")
    made = encode.everything(
        {
            "resources": late,
            "pod": EncodedMessage(facts.pod.SerializeToString()),
            "cpu": denied,
            "interfaces": facts.interfaces,
        }
    )
    found = api.AllResponse.FromString(made.body)
    assert found.pod == facts.pod and found.interfaces == facts.interfaces
    assert [(one.part, one.reason) for one in found.errors] == [
        ("cpu", Reason.PID_OUTSIDE_POD),
        ("resources", Reason.POD_LIST_UNAVAILABLE),
    ]
    assert not found.HasField("cpu") and not found.HasField("resources")


KINDS = st.sampled_from([lambda part: part, encode.encode])
FAILURES = st.builds(Unavailable, st.sampled_from(Reason), TEXTS) | st.builds(
    PermissionDenied, st.sampled_from(Reason), TEXTS
)


@given(parts=SOME, failed=st.dictionaries(st.sampled_from(NAMES), FAILURES), data=st.data())
def test_everything_is_what_protobuf_makes_of_parts_and_errors(
    parts: dict[str, Any], failed: dict[str, AgentError], data: st.DataObject
) -> None:
    there = {name: part for name, part in parts.items() if name not in failed}
    expected = api.AllResponse(
        **there, errors=[part_error(name, failed[name]) for name in NAMES if name in failed]
    )
    given = {name: data.draw(KINDS)(part) for name, part in there.items()} | failed
    shuffled = dict(data.draw(st.permutations(list(given.items()))))
    assert encode.everything(shuffled).body == expected.SerializeToString()


def cpus(quota: int = 1000) -> Cpus:
    limit = CpuLimit(quota, 1000)
    bandwidth = CpuBandwidth(shares=1024, limit=limit, own_limit=limit)
    asked = AskedCpus(CpuAmounts(1.0, 2.0, None, None), None, None)
    return Cpus(CpuFacts("0-1", "0-1", bandwidth, 2), "0", None, asked)


def cpu(number: int, *, online: bool = True) -> Cpu:
    return Cpu(number, number, 0, 0, (number,), online, False, False)


@pytest.mark.parametrize("exclusive", [(), (1,), (0, 1)])
@pytest.mark.parametrize("each", [(), (cpu(0), cpu(1, online=False))])
def test_cpus_with_topology_are_what_one_message_would_be(
    each: tuple[Cpu, ...], exclusive: tuple[int, ...]
) -> None:
    found = cpus()
    expected = api.CPUResponse()
    expected.CopyFrom(convert_devices.cpus(found))
    convert_devices.add_topology(expected, each, exclusive)
    made = encode.cpus_with_topology(found, each, exclusive)
    assert api.CPUResponse.FromString(made.body) == expected
    assert made.ByteSize() == expected.ByteSize()


def test_cpus_are_encoded_again_once_one_source_differs() -> None:
    found, each = cpus(), (cpu(0), cpu(1))
    first = encode.cpus_with_topology(found, each, (1,))
    assert encode.cpus_with_topology(found, (cpu(0), cpu(1)), (1,)) is first
    offline = encode.cpus_with_topology(found, (cpu(0), cpu(1, online=False)), (1,))
    assert not api.CPUResponse.FromString(offline.body).cpus[1].online
    alone = encode.cpus_with_topology(found, each, (0, 1))
    assert api.CPUResponse.FromString(alone.body).exclusive_cpus == "0-1"
    limited = encode.cpus_with_topology(cpus(500), each, (1,))
    assert api.CPUResponse.FromString(limited.body).quota_cores == 0.5
    assert api.CPUResponse.FromString(encode.cpus(found).body).exclusive_cpus == ""


def labelled(value: str) -> Pod:
    return pod("web", UID, {"app": f"containerd://{APP}"}, annotations={"value": value})


def named(one: Pod, observed_at: datetime = NOW) -> Match:
    match = index([one], observed_at).named(UID, APP)
    assert match is not None
    return match


def test_an_answer_is_encoded_once_for_an_entry_of_a_list() -> None:
    match = named(labelled("a"))
    first = encode.pod(match, APP)
    assert encode.pod(match, APP) is first
    assert api.PodResponse.FromString(first.body) == convert.pod(match, APP)


def test_an_entry_that_is_not_named_is_encoded_each_time() -> None:
    match = replace(named(labelled("a")), container_name="")
    assert encode.pod(match, APP) is not encode.pod(match, APP)
    assert api.PodResponse.FromString(encode.pod(match, APP).body) == convert.pod(match, APP)


def test_another_processs_container_id_is_not_the_entrys() -> None:
    match = named(labelled("a"))
    encode.pod(match, APP)
    assert api.PodResponse.FromString(encode.pod(match, "f" * 64).body).container_id == "f" * 64


def test_kept_networks_are_known_for_their_own_entry_only() -> None:
    match = named(labelled("a"))
    assert encode.known_network(match) is None
    made = encode.network(networks_of(match.pod), match)
    encode.keep_network(match, made)
    assert encode.known_network(match) is made
    assert encode.known_network(named(labelled("a"))) is None


def test_no_answer_is_older_than_its_list() -> None:
    """A thousand lists, at random with the pod changed, only read again, or made again."""
    chance, number = random.Random(1), 0  # noqa: S311 - no secret
    one, at = labelled("0"), NOW
    for _ in range(1000):
        at += timedelta(seconds=chance.randrange(3))
        if chance.random() < 0.5:
            number += 1
            one = labelled(str(number))
        match = named(one, at)
        for _ in range(chance.randrange(1, 4)):
            found = api.PodResponse.FromString(encode.pod(match, APP).body)
            assert found.annotations["value"] == str(number)
            assert found.observed_at.ToDatetime(UTC) == at


def test_an_answer_of_held_values_is_encoded_once_with_them() -> None:
    found = Hugepages((), (), (HugepagePool(2**21, 2**30, 2**29, 0, 0, ()),), None)
    first = encode.hugepages(found)
    assert encode.hugepages(found) is first
    assert api.HugepagesResponse.FromString(first.body) == convert_devices.hugepages(found)
    other = replace(found, answers={}, pools=())
    assert encode.hugepages(other) is not first


def test_given_resources_are_encoded_again_if_functions_change() -> None:
    found = ContainerResources((), (1, 2), (), (), NOW)
    first = encode.resources(found, GivenDevices())
    assert encode.resources(found, GivenDevices()) is first
    changed = encode.resources(found, GivenDevices(GivenFunctions(absent=("0000:3b:00.1",))))
    assert api.ResourceResponse.FromString(first.body).absent_pci == []
    assert api.ResourceResponse.FromString(changed.body).absent_pci == ["0000:3b:00.1"]
    assert encode.resources(found, GivenDevices()) is not changed


@pytest.mark.parametrize(("count", "characters"), [(0, 0), (3, 10), (20_000, 10), (40, 130_000)])
def test_an_environment_in_portions_is_one_answer(
    count: int, characters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {f"V{number}": "x" * characters for number in range(count)}
    made: list[int] = []
    response = api.EnvResponse

    def recording(*, envs: dict[str, str], **others: int) -> api.EnvResponse:
        made.append(sum(len(name) + len(value) for name, value in envs.items()))
        return response(envs=envs, **others)

    yields: list[None] = []
    monkeypatch.setattr(api, "EnvResponse", recording)
    monkeypatch.setattr(encode, "yield_cpu", lambda: yields.append(None))
    answer = encode.environment(Environment(variables, 3, 5), variables)
    expected = response(envs=variables, replaced_entries=3, skipped_entries=5)
    assert response.FromString(answer.body) == expected
    assert max(made) <= 2 * 128 * 1024 + characters
    assert len(yields) == len(made) - 1
    assert sum(made) == sum(len(name) + len(value) for name, value in variables.items())
