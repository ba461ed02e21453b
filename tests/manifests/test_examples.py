"""The examples, and the right that only old kubelets need."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.manifests.documents import (
    DEFAULT,
    EXAMPLE_POD,
    NODES,
    NODES_PROXY,
    agent_of,
    assert_bound,
    mounts_of,
    one,
    read,
    settings_of,
)
from tests.support.manifests.overlays import documented_overlay, objects_of


class TestExamplePod:
    def test_mounts_the_directory_read_only_and_nothing_else(self) -> None:
        pod = one(read(EXAMPLE_POD), "Pod")
        (container,) = pod["spec"]["containers"]
        assert container["volumeMounts"] == [
            {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True}
        ]
        directory = Path(settings_of(agent_of(read(DEFAULT)), NODES[0]).sockets.pods).parent
        assert pod["spec"]["volumes"] == [
            {"name": "netutil", "hostPath": {"path": str(directory), "type": "Directory"}}
        ]

    def test_has_neither_token_nor_powers(self) -> None:
        pod = one(read(EXAMPLE_POD), "Pod")
        (container,) = pod["spec"]["containers"]
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}

    def test_runs_the_client_of_the_same_image(self) -> None:
        pod = one(read(EXAMPLE_POD), "Pod")
        (container,) = pod["spec"]["containers"]
        assert container["image"] == agent_of(read(DEFAULT))["image"]
        assert container["command"][0] == "netutil"


@pytest.mark.parametrize("variant", ["self-signed-kubelet", "self-signed-kubelet, hardened"])
class TestOverlay:
    def test_trusts_its_own_kubelet_alone(self, variant: str) -> None:
        objects = objects_of(variant)
        settings = settings_of(agent_of(objects), NODES[0])
        assert settings.kubelet.api.verify == "ca"
        mount, volume = mounts_of(objects)[settings.kubelet.api.ca]
        assert mount["readOnly"] is True
        assert volume["hostPath"]["type"] == "File"

    def test_takes_the_users_image(self, variant: str) -> None:
        (image,) = yaml.safe_load(documented_overlay())["images"]
        assert agent_of(read(DEFAULT))["image"] == f"{image['name']}:{image['newTag']}"
        assert agent_of(objects_of(variant))["image"] == f"{image['newName']}:{image['newTag']}"

    def test_keeps_the_privileges_of_what_it_builds_on(self, variant: str) -> None:
        base = "hardened" if variant.endswith("hardened") else "default"
        context = agent_of(objects_of(variant))["securityContext"]
        assert context == agent_of(objects_of(base))["securityContext"]


class TestNodesProxy:
    def test_is_a_right_of_its_own_for_the_same_account(self) -> None:
        objects = read(NODES_PROXY)
        role = one(objects, "ClusterRole")
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}
        ]
        assert_bound(objects, one(read(DEFAULT), "ServiceAccount"))
        names = {manifest["metadata"]["name"] for manifest in read(DEFAULT)}
        assert role["metadata"]["name"] not in names
