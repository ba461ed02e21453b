"""Networks and IPs that are not understood are unknown, with a reason: they are never "none"."""

from __future__ import annotations

from typing import Any

import pytest
from netutil.agent.collect.pod_networks import ensure_networks_understood
from netutil.agent.errors import FailedPrecondition
from netutil.agent.pods.model import MAX_PATHS

from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.unit.collect.spoiled_pod import changed


@pytest.mark.parametrize(
    ("ips", "odd"),
    [
        ([{"ip": 7}], "status.podIPs[0].ip"),
        ([None], "status.podIPs[0]"),
        ("x", "status.podIPs"),
    ],
    ids=str,
)
def test_ips_that_are_not_understood_are_no_missing_networks(ips: object, odd: str) -> None:
    def spoil(item: dict[str, Any]) -> None:
        item["status"] = {"podIPs": ips}

    with pytest.raises(FailedPrecondition) as caught:
        ensure_networks_understood(changed(spoil))
    assert f"({odd} is not understood)" in caught.value.message


def test_a_status_that_is_null_is_named_in_the_network_sentence() -> None:
    with pytest.raises(FailedPrecondition, match=r"\(status is not understood\)"):
        ensure_networks_understood(changed(lambda item: item.update(status=None)))


@pytest.mark.parametrize("place", ["labels", "annotations"])
def test_many_odd_fields_hide_no_unreadable_network_status(place: str) -> None:
    def spoil(item: dict[str, Any]) -> None:
        item["metadata"][place] = {f"l{number}": None for number in range(MAX_PATHS + 6)}
        item["metadata"].setdefault("annotations", {})[NETWORK_STATUS] = [{"name": "cbr0"}]

    pod = changed(spoil)
    assert len(pod.not_understood) == MAX_PATHS
    with pytest.raises(FailedPrecondition, match="is not understood"):
        ensure_networks_understood(pod)


def test_many_odd_labels_hide_nothing_else() -> None:
    def spoil(item: dict[str, Any]) -> None:
        item["metadata"]["labels"] = {f"l{number}": None for number in range(MAX_PATHS + 6)}

    pod = changed(spoil)
    ensure_networks_understood(pod)
    assert not pod.has_more_not_understood
