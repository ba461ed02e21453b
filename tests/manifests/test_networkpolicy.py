"""The NetworkPolicy: only Prometheus reaches the agents, and the agents reach everything."""

from __future__ import annotations

import pytest

from tests.support.manifests.documents import agent_of, one
from tests.support.manifests.overlays import BASES, with_component


@pytest.mark.parametrize("base", BASES)
def test_it_selects_the_agents_and_their_port(base: str) -> None:
    objects = with_component(base, "networkpolicy")
    policy = one(objects, "NetworkPolicy")
    daemonset = one(objects, "DaemonSet")
    assert policy["metadata"]["namespace"] == daemonset["metadata"]["namespace"]
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    (rule,) = policy["spec"]["ingress"]
    ports = {port["name"] for port in agent_of(objects)["ports"]}
    assert {port["port"] for port in rule["ports"]} == ports


@pytest.mark.parametrize("base", BASES)
def test_it_admits_one_namespace_and_restricts_no_egress(base: str) -> None:
    spec = one(with_component(base, "networkpolicy"), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert "egress" not in spec
    (rule,) = spec["ingress"]
    assert rule["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    ]
