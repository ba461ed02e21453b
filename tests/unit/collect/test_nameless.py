"""A container without a name in the pod list lends no amounts, and is not offered as the caller."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from netutil.agent.collect import amounts
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.pods.index import Match
from netutil.agent.pods.pending import pending

from tests.unit.collect.spoiled_pod import changed, container

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_nameless_caller_gets_no_nameless_containers_amounts() -> None:
    def spoil(item: dict[str, Any]) -> None:
        container(item)["name"] = None
        item["status"]["containerStatuses"].append(
            {"name": None, "state": {"waiting": {}}, "allocatedResources": {"cpu": "7"}}
        )

    pod = changed(spoil)
    assert amounts.container_cpus(pod, "") is None
    assert pod.spec.resources_of("") is None
    assert pod.granted("") is None
    assert pod.spec.kind_of("") == "container"
    cpus = amounts.asked_cpus(pod, "")
    assert cpus.container is None and cpus.error is not None


@pytest.mark.parametrize("odd", [None, ""], ids=str)
def test_a_container_without_a_name_is_not_offered_as_the_caller(odd: object) -> None:
    def spoil(item: dict[str, Any]) -> None:
        container(item, 1)["name"] = odd
        item["status"]["containerStatuses"][1]["name"] = odd

    pod = changed(spoil)
    assert "" not in pending(pod)
    match = Match(pod, "", "", NOW, container_id="e" * 64)
    assert "It may be ," not in unnamed(match, "").advice


def test_no_caller_is_called_unlisted_beside_a_nameless_one() -> None:
    def spoil(item: dict[str, Any]) -> None:
        container(item, 1)["name"] = item["status"]["containerStatuses"][1]["name"] = ""

    match = Match(changed(spoil), "", "", NOW, container_id="e" * 64)
    assert not match.decided(lambda status: False).is_unlisted
