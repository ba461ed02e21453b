"""The agent, started as the components say, with an API server or a kubelet that pushes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.manifests.deployment import LabNode, free_loopback, lab_node
from tests.support.fakes.apiserver import ApiServer, serving_api
from tests.support.fakes.certificates import context_of
from tests.support.fakes.podsapi import KubeletDouble, pod_of_json, serving_in_a_thread
from tests.support.lab import why_no_lab
from tests.support.manifests.overlays import BASES, with_component
from tests.support.nodes.agent_node import NETWORK_STATUS, netutil

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("deployed")]

_PORT = 6443


@pytest.fixture(scope="module")
def node() -> Iterator[LabNode]:
    missing = why_no_lab()
    if missing:
        pytest.skip(missing)
    with lab_node() as made:
        yield made


def pods_of(node: LabNode) -> list[dict[str, Any]]:
    items = json.loads(json.dumps(node.lab.pod_list()))["items"]
    assert isinstance(items, list)
    return items


def with_network(pod: dict[str, Any], interface: str) -> dict[str, Any]:
    """Return the pod with the annotation that Multus writes."""
    status = [{"name": "shop/second", "interface": interface, "ips": ["10.9.0.7"]}]
    annotations = {**(pod["metadata"].get("annotations") or {}), NETWORK_STATUS: json.dumps(status)}
    return {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}


def interface_of(node: LabNode) -> str:
    found = netutil(node.user, "network", uid=0, gid=0)["status"]
    return str(found[-1].get("interface", "")) if found else ""


def wait_for_interface(node: LabNode, interface: str) -> float:
    """Ask until the pod gets that answer; return the seconds that it took."""
    began = time.monotonic()
    while interface_of(node) != interface:
        assert time.monotonic() - began < 30
    return time.monotonic() - began


@pytest.mark.parametrize("base", BASES)
def test_an_agent_with_the_api_server_answers_and_brings_changes(node: LabNode, base: str) -> None:
    authority = trustme.CA()
    address = free_loopback(_PORT)
    authority.cert_pem.write_to_path(str(node.service_account / "ca.crt"))
    api = ApiServer(context_of(authority.issue_cert(address)), (address, _PORT), "lab-node")
    api.tokens = {(node.service_account / "token").read_text(encoding="ascii")}
    for pod in pods_of(node):
        api.put(pod)
    services = {"KUBERNETES_SERVICE_HOST": address, "KUBERNETES_SERVICE_PORT": str(_PORT)}
    with serving_api(api):
        node.deploy(with_component(base, "apiserver"), services)
        assert netutil(node.user, "whoami", uid=0, gid=0)["name"] == "of-a-user"
        (pod,) = (one for one in pods_of(node) if one["metadata"]["name"] == "of-a-user")
        api.put(with_network(pod, "net1"))
        assert wait_for_interface(node, "net1") < 10
        assert len(api.listed) == 1
        node.withdraw()


@pytest.mark.parametrize("base", BASES)
def test_an_agent_with_the_pods_api_answers_and_brings_changes(node: LabNode, base: str) -> None:
    node.pods_api.mkdir(exist_ok=True)
    kubelet = KubeletDouble(Path(node.pods_api, "pods-api.sock"), *map(pod_of_json, pods_of(node)))
    with serving_in_a_thread(kubelet) as loop:
        node.deploy(with_component(base, "pods-api"))
        assert netutil(node.user, "whoami", uid=0, gid=0)["name"] == "of-a-user"
        (pod,) = (one for one in pods_of(node) if one["metadata"]["name"] == "of-a-user")
        loop.call_soon_threadsafe(kubelet.put, pod_of_json(with_network(pod, "net2")))
        assert wait_for_interface(node, "net2") < 10
        assert kubelet.watches == 1
        node.withdraw()
