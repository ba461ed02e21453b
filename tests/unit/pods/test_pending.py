"""The containers of a pod that a later list may report under a new ID."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.pods.index import index
from netutil.agent.pods.model import Pod, convert_pod_list
from netutil.agent.pods.pending import only_unreported, pending

NOW = datetime(2026, 3, 1, tzinfo=UTC)
UNLISTED = "e" * 64
KINDS = {
    "init": ("initContainers", "initContainerStatuses"),
    "container": ("containers", "containerStatuses"),
    "ephemeral": ("ephemeralContainers", "ephemeralContainerStatuses"),
}
RUNNING, WAITING, TERMINATED = ("running", "waiting", "terminated")
NO_STATUS = "none"
SIDECAR: dict[str, Any] = {"restartPolicy": "Always"}


def one(
    kind: str, name: str, state: str, container_id: str = "", **spec: Any
) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """A container: its kind, its entry of the spec, and its status."""
    status: dict[str, Any] | None = {"name": name, "state": {state: {}}}
    if state == NO_STATUS:
        status = None
    elif container_id:
        status = {**(status or {}), "containerID": f"containerd://{container_id}"}
    return kind, {"name": name, **spec}, status


def pod(*containers: tuple[str, dict[str, Any], dict[str, Any] | None], **spec: Any) -> Pod:
    status: dict[str, Any] = {}
    for kind, (field, statuses) in KINDS.items():
        spec[field] = [entry for of, entry, _ in containers if of == kind]
        status[statuses] = [one for of, _, one in containers if of == kind and one is not None]
    metadata = {"name": "web", "uid": "1"}
    (made,) = convert_pod_list({"items": [{"metadata": metadata, "spec": spec, "status": status}]})
    return made


APP = one("container", "app", RUNNING, "a" * 64)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (one("container", "late", NO_STATUS), ("late",)),
        (one("container", "late", WAITING), ("late",)),
        (one("container", "late", WAITING, "b" * 64), ("late",)),
        (one("container", "late", TERMINATED, "b" * 64), ("late",)),
        (one("container", "late", RUNNING, "b" * 64), ()),
        (one("init", "setup", TERMINATED, "b" * 64), ()),
        (one("init", "setup", NO_STATUS), ()),
        (one("init", "sidecar", RUNNING, "b" * 64, **SIDECAR), ()),
        (one("init", "sidecar", TERMINATED, "b" * 64, **SIDECAR), ("sidecar",)),
        (one("init", "sidecar", WAITING, "b" * 64, **SIDECAR), ("sidecar",)),
        (one("ephemeral", "debug", NO_STATUS), ("debug",)),
        (one("ephemeral", "debug", WAITING), ("debug",)),
        (one("ephemeral", "debug", RUNNING, "b" * 64), ()),
        (one("ephemeral", "debug", TERMINATED, "b" * 64), ()),
    ],
    ids=lambda value: f"{value[0]} {value[2]}" if len(value) == len(APP) else None,
)
def test_some_containers_may_start_beside_a_running_one(
    other: tuple[str, dict[str, Any], dict[str, Any] | None], expected: tuple[str, ...]
) -> None:
    assert pending(pod(APP, other)) == expected


def test_init_containers_may_start_before_a_container_runs() -> None:
    setup = one("init", "setup", TERMINATED, "b" * 64)
    app = one("container", "app", WAITING)
    assert pending(pod(setup, one("init", "more", WAITING), app)) == ("setup", "more", "app")


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ({}, ("job",)),
        ({"pod": "OnFailure"}, ("job",)),
        ({"pod": "Never"}, ()),
        ({"pod": "Never", "own": "Always"}, ("job",)),
        ({"pod": ["odd"], "own": {"odd": 1}}, ("job",)),
    ],
    ids=str,
)
def test_an_ended_container_is_awaited_only_if_it_restarts(
    policies: dict[str, Any], expected: tuple[str, ...]
) -> None:
    own = {"restartPolicy": policies["own"]} if "own" in policies else {}
    job = one("container", "job", TERMINATED, "b" * 64, **own)
    assert pending(pod(APP, job, restartPolicy=policies.get("pod"))) == expected


def test_a_status_that_the_spec_lacks_counts_too() -> None:
    _, _, status = one("container", "late", WAITING)
    metadata = {"name": "web", "uid": "1"}
    entry = {"metadata": metadata, "status": {"containerStatuses": [status]}}
    (made,) = convert_pod_list({"items": [entry]})
    assert pending(made) == ("late",)


@pytest.mark.parametrize("state", [WAITING, TERMINATED, RUNNING])
def test_the_only_container_is_none_once_the_list_has_its_id(state: str) -> None:
    assert only_unreported(pod(one("container", "app", NO_STATUS))) == "app"
    assert only_unreported(pod(one("container", "app", WAITING))) == "app"
    assert only_unreported(pod(one("container", "app", state, "a" * 64))) == ""


def test_the_only_container_of_two_is_none() -> None:
    debug = one("ephemeral", "debug", NO_STATUS)
    assert only_unreported(pod(one("container", "app", WAITING), debug)) == ""


containers = st.builds(
    one,
    st.sampled_from(list(KINDS)),
    st.sampled_from(["app", "side", "setup"]),
    st.sampled_from([RUNNING, WAITING, TERMINATED, NO_STATUS]),
    st.sampled_from(["", "a" * 64, "b" * 64]),
    restartPolicy=st.sampled_from([None, "Always", "Never", 7]),
)


@given(
    st.lists(containers, max_size=4),
    st.sampled_from([None, "Always", "Never", 7]),
    st.booleans(),
)
def test_an_unlisted_container_never_gets_a_listed_name(
    made: list[tuple[str, dict[str, Any], dict[str, Any] | None]], policy: object, has_ended: bool
) -> None:
    entry = pod(*made, restartPolicy=policy)
    match = index([entry], NOW).find("1", UNLISTED)
    assert match is not None
    decided = match.decided(lambda _: has_ended)
    if decided.container_name:
        assert not any(status.id for _, status in entry.container_statuses)
        assert [name for _, name, _ in entry.spec.planned] == [decided.container_name]
    if decided.is_unlisted:
        assert not decided.container_name
        assert not pending(entry)
        running = any(one.state_name == RUNNING for _, one in entry.container_statuses)
        assert not (running and has_ended)
    in_no_container = index([entry], NOW).find("1", None)
    assert in_no_container is not None
    assert in_no_container.decided(lambda _: has_ended) is in_no_container
