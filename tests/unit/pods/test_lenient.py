"""One odd value in a pod: that field is unknown, the pod and all else of it are known."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import (
    Pod,
    PodListMalformed,
    convert_pod_list,
    decode_pod_list,
)

from tests.unit.pods.test_model import SAMPLE

Path = tuple[str | int, ...]
ODD = [None, 0, 1.5, True, "", "odd", "half a pair: \ud800", [], ["a"], {}, {"a": 1}]
IDENTITY = {("metadata",), ("metadata", "name"), ("metadata", "uid"), ("metadata", "namespace")}
WHOLE: dict[str, Any] = copy.deepcopy(SAMPLE["items"][0])
WHOLE["spec"]["hostNetwork"] = True
PLAIN: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
    "spec": {"nodeName": "n", "containers": [{"name": "app"}]},
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "app",
                "containerID": "x://1",
                "state": {"running": {"startedAt": "2026-03-01T10:00:09Z"}},
            }
        ],
    },
}


def paths(value: object, inside: Path = ()) -> Iterator[Path]:
    if inside:
        yield inside
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from paths(item, (*inside, key))


def with_odd(document: Any, path: Path, odd: object) -> Any:
    changed = copy.deepcopy(document)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd
    return changed


def read(item: object) -> tuple[Pod, ...]:
    """The pods of a list with another, which reads the same as JSON and as YAML."""
    document = {"kind": "PodList", "items": [{"metadata": {"name": "a", "uid": "b"}}, item]}
    found = decode_pod_list(json.dumps(document).encode())
    assert convert_pod_list(document) == found
    assert found[0].metadata.name == "a"
    return found[1:]


def leaves(value: object, inside: tuple[object, ...] = ()) -> dict[tuple[object, ...], object]:
    """Every value that was read, by its place."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in leaves(one, (*inside, key)).items()}
    if isinstance(value, list | tuple):
        return {
            k: v
            for number, one in enumerate(value)
            for k, v in leaves(one, (*inside, number)).items()
        }
    return {inside: value}


def as_read(pod: Pod) -> dict[tuple[object, ...], object]:
    found = leaves(msgspec.to_builtins(pod))
    return {path: one for path, one in found.items() if path[0] != "-flaws"}


@given(st.sampled_from(sorted(paths(WHOLE), key=str)), st.sampled_from(ODD))
def test_an_odd_value_hides_no_other(path: Path, odd: object) -> None:
    if path in IDENTITY and (odd != "odd" or path == ("metadata",)):
        return
    (whole,), (pod,) = read(WHOLE), read(with_odd(WHOLE, path, odd))
    assert (pod.metadata.name, pod.metadata.uid) == (
        ("odd" if path[-1] == "name" and path in IDENTITY else whole.metadata.name),
        ("odd" if path[-1] == "uid" else whole.metadata.uid),
    )
    before, after = as_read(whole), as_read(pod)
    where = tuple(str(key) for key in path)
    for place, value in before.items():
        names = tuple(str(key) for key in place)
        # Below the odd value or, in a list, behind it, where items move up.
        touched = names[: len(where)] == where or any(
            isinstance(key, int) and names[:depth] == where[:depth]
            for depth, key in enumerate(path)
        )
        derived = any(name.startswith("-") for name in names)
        if not touched and not derived:
            assert after.get(place, value) == value, (place, pod.not_understood)


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("status", "phase"), None),
        (("status", "qosClass"), None),
        (("status", "podIP"), None),
        (("spec", "nodeName"), None),
        (("spec", "nodeName"), 7),
        (("spec", "hostNetwork"), "true"),
        (("spec", "serviceAccountName"), []),
        (("spec",), "odd"),
        (("status",), 5),
        (("metadata", "labels"), 5),
        (("metadata", "labels", "app"), 5),
        (("metadata", "annotations", "k8s.v1.cni.cncf.io/network-status"), [{"name": "a"}]),
        (("status", "podIPs"), "10.0.0.7"),
        (("status", "podIPs", 1), "10.0.0.7"),
        (("status", "podIPs", 1, "ip"), None),
        (("status", "containerStatuses"), {}),
        (("status", "containerStatuses", 0), None),
        (("status", "containerStatuses", 0, "name"), None),
        (("status", "containerStatuses", 0, "containerID"), None),
        (("status", "containerStatuses", 0, "state"), "running"),
        (("status", "containerStatuses", 0, "state", "running"), "yes"),
        (("status", "containerStatuses", 0, "state", "running", "startedAt"), None),
        (("spec", "containers", 0, "resources", "limits"), "2"),
    ],
    ids=str,
)
def test_an_odd_value_is_unknown_and_named(path: Path, odd: object) -> None:
    (pod,) = read(with_odd(WHOLE, path, odd))
    (whole,) = read(WHOLE)
    named = "".join(
        f"[{key}]"
        if isinstance(key, int) or key in (whole.metadata.annotations or ())
        else f".{key}"
        for key in path
    ).removeprefix(".")
    assert pod.not_understood == (named.replace(".app", "[app]"),)
    assert whole.not_understood == ()


@pytest.mark.parametrize("odd", [5, None, "odd"], ids=repr)
@pytest.mark.parametrize("name", ["running", "state"])
def test_a_state_that_is_not_understood_is_not_called_waiting(name: str, odd: object) -> None:
    place: Path = ("status", "containerStatuses", 0, "state")
    (pod,) = read(with_odd(PLAIN, place if name == "state" else (*place, name), odd))
    ((_, status),) = pod.container_statuses
    # What is null is not set, and a state that is not set is "waiting" (core/v1).
    assert status.state_name == ("waiting" if odd is None else "unknown")
    assert (status.name, status.id) == ("app", "1")


def test_a_container_without_a_start_time_runs() -> None:
    place = ("status", "containerStatuses", 0, "state", "running", "startedAt")
    ((_, status),) = read(with_odd(PLAIN, place, None))[0].container_statuses
    assert (status.state_name, status.started_at) == ("running", None)


@pytest.mark.parametrize(
    ("path", "odd"),
    [
        (("spec", "containers"), "odd"),
        (("spec", "containers", 0, "name"), None),
        (("spec", "initContainers"), 5),
        (("spec", "ephemeralContainers"), [5]),
        (("status", "containerStatuses"), "odd"),
        (("status", "containerStatuses", 0), 5),
        (("status", "containerStatuses", 0, "containerID"), 5),
        (("spec",), 5),
        (("status",), 5),
    ],
    ids=str,
)
def test_the_only_container_is_not_inferred_if_another_may_exist(path: Path, odd: object) -> None:
    assert read(PLAIN)[0].spec.only_container == "app"
    assert read(with_odd(PLAIN, path, odd))[0].spec.only_container == ""


def test_an_odd_container_still_counts_as_one() -> None:
    (pod,) = read(with_odd(PLAIN, ("spec", "containers"), [{"name": "app"}, None]))
    assert pod.spec.only_container == ""


def test_a_status_without_a_name_still_identifies_its_pod() -> None:
    (pod,) = read(with_odd(PLAIN, ("status", "containerStatuses", 0, "name"), 7))
    assert [(status.name, status.id) for _, status in pod.container_statuses] == [("", "1")]


@pytest.mark.parametrize("odd", [None, 5, True, [], {}, ""], ids=repr)
@pytest.mark.parametrize("name", ["name", "uid", "namespace"])
def test_only_a_pod_that_cannot_be_identified_is_left_out(name: str, odd: object) -> None:
    item = with_odd(PLAIN, ("metadata", name), odd)
    if (name, odd) == ("namespace", ""):
        assert len(read(item)) == 1
        return
    flaws = Flaws()
    document = {"items": [{"metadata": {"name": "a", "uid": "b"}}, item]}
    assert len(decode_pod_list(json.dumps(document).encode(), flaws)) == 1
    assert (flaws.entries, flaws.fields) == (1, 0)
    assert f"$.metadata.{name} is " in flaws.last_entry


def test_no_list_forges_what_the_agent_derives() -> None:
    forged = {**PLAIN, "-flaws": ["status.phase"], "spec": {**PLAIN["spec"], "-only": "other"}}
    assert read(forged) == read(PLAIN)
    assert read({**forged, "kind": None})[0].not_understood == ("kind",)


@pytest.mark.parametrize("kind", [None, "PodList", "List"])
def test_a_list_without_a_kind_is_a_list(kind: str | None) -> None:
    document = {"kind": kind, "items": [PLAIN]}
    assert len(decode_pod_list(json.dumps(document).encode())) == len(convert_pod_list(document))


def test_half_a_surrogate_pair_anywhere_breaks_no_list() -> None:
    odd = {**PLAIN, "status": {**PLAIN["status"], "message": "\ud800"}}
    assert read(odd)[0].status == read(PLAIN)[0].status
    with pytest.raises(PodListMalformed):
        decode_pod_list(json.dumps({"items": [odd]}).encode()[:-1])


@pytest.mark.parametrize("name", ["nodeName", "serviceAccountName"])
def test_half_a_surrogate_pair_is_unknown_where_it_is_read(name: str) -> None:
    """No answer could hold it: protobuf's text is UTF-8."""
    (pod,) = read(with_odd(WHOLE, ("spec", name), "\ud800"))
    assert pod.not_understood == (f"spec.{name}",)
    assert (pod.spec.node_name, pod.spec.service_account_name).count("") == 1


def test_flaws_are_logged_once_in_ten_minutes_and_always_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    flaws = Flaws(lambda: now[0])
    item = with_odd(PLAIN, ("status", "phase"), None)
    item["status"]["podIP"] = item["spec"]["nodeName"] = item["status"]["qosClass"] = 5
    body = json.dumps({"items": [item, {}]}).encode()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            decode_pod_list(body, flaws)
            now[0] += 250
        assert len(caplog.messages) == 2
        decode_pod_list(body, flaws)
    assert len(caplog.messages) == 4
    assert (flaws.fields, flaws.entries) == (16, 4)
    assert caplog.messages[0] == (
        "pod list: pod 'shop/web' is known, but not all of it: spec.nodeName is a number;"
        " status.phase is null; status.qosClass is a number; and 1 more"
    )
    assert caplog.messages[1] == (
        "pod list: 1 of 2 left out; the first, item 1: $.metadata is missing"
    )


def test_logged_flaws_are_released_in_ten_minutes() -> None:
    now = [0.0]
    flaws = Flaws(lambda: now[0])
    flaws.left_out(["item 1: it has no name"], 2)
    flaws.said.age()
    assert len(flaws.said) == 1
    now[0] = 590.0
    flaws.said.age()
    assert len(flaws.said) == 0


def test_many_flaws_are_counted_and_few_are_kept() -> None:
    flaws = Flaws()
    item = with_odd(PLAIN, ("metadata", "labels"), {f"l{n}": n for n in range(1000)})
    (pod,) = decode_pod_list(json.dumps({"items": [item]}).encode(), flaws)
    assert (len(pod.not_understood), flaws.fields) == (64, 1000)
