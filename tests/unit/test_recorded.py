"""The parsers read recordings of real kubelets, runtimes and kernels (`make e2e`) correctly."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from netutil.agent.parsers.cgroup import identify, place
from netutil.agent.parsers.pod_cgroups import normalise_uid, pod_places
from netutil.agent.pods.index import index
from netutil.agent.pods.model import decode_pod_list
from netutil.podresources.v1 import podresources_pb2

from tests.support.repository import RECORDINGS

RECORDED = {path.stem: json.loads(path.read_text()) for path in RECORDINGS.glob("*")}
CONTAINERS = [
    pytest.param(recorded, one, id=f"{name}: {one['pod']}/{one['container']}")
    for name, recorded in RECORDED.items()
    for one in recorded["cgroups"]
]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pods(recorded: dict[str, Any]) -> Any:
    return index(decode_pod_list(json.dumps(recorded["kubelet"]).encode()), NOW)


@pytest.mark.parametrize(("recorded", "one"), CONTAINERS)
def test_a_real_cgroup_file_names_pod_and_container(
    recorded: dict[str, Any], one: dict[str, str]
) -> None:
    top = one["text"].partition(":/")[2].partition("/")[0]
    root = f"/{top}" if top.startswith("netutil-lab-") else ""  # the kubelet's cgroupRoot there
    places = pod_places("/", root)
    found = identify(one["text"], lambda line: place(line, line.path, places))
    assert found.container_id == one["container_id"]
    assert found.pod_uid is not None
    assert normalise_uid(found.pod_uid) == normalise_uid(one["pod_uid"])


@pytest.mark.parametrize(("recorded", "one"), CONTAINERS)
def test_a_real_pod_list_knows_the_container(recorded: dict[str, Any], one: dict[str, str]) -> None:
    match = pods(recorded).find(one["pod_uid"], one["container_id"])
    assert match is not None
    assert match.pod.metadata.name == one["pod"]
    assert (match.container_name, match.container_kind) == (one["container"], "container")


@pytest.mark.parametrize(("recorded", "one"), CONTAINERS)
def test_only_a_guaranteed_container_of_a_whole_cpu_owns_one(
    recorded: dict[str, Any], one: dict[str, str]
) -> None:
    """The kubelet of 1.20 lists the shared CPUs for everybody else."""
    body = bytes.fromhex(recorded["pod_resources"])
    listed = podresources_pb2.ListPodResourcesResponse.FromString(body)
    (cpu_ids,) = (
        list(container.cpu_ids)
        for pod in listed.pod_resources
        for container in pod.containers
        if (pod.name, container.name) == (one["pod"], one["container"])
    )
    match = pods(recorded).find(one["pod_uid"], one["container_id"])
    assert match is not None
    owns = match.pod.may_own_cpus(match.container_name)
    assert (owns, cpu_ids) == ((True, [1]) if one["pod"] == "guaranteed-e2e" else (False, [0]))
