"""The components that name another source of pods, and what right each of them leaves."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from tests.support.manifests.documents import (
    APISERVER_RBAC,
    DEFAULT,
    NODES,
    Manifest,
    agent_of,
    assert_bound,
    mounts_of,
    one,
    pod_of,
    read,
    settings_of,
)
from tests.support.manifests.overlays import BASES, objects_of, with_component, with_components

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture(params=BASES)
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def kinds(objects: list[Manifest]) -> list[str]:
    return sorted(manifest["kind"] for manifest in objects)


@pytest.mark.parametrize("component", ["apiserver", "pods-api", "resource-claims"])
class TestEach:
    def test_are_valid(self, base: str, component: str) -> None:
        for manifest in with_component(base, component):
            assert kubernetes_validate.validate(manifest, "1.37", strict=True) == "1.37"

    def test_keep_the_privileges_of_what_they_build_on(self, base: str, component: str) -> None:
        context = agent_of(with_component(base, component))["securityContext"]
        assert context == agent_of(objects_of(base))["securityContext"]


class TestApiServer:
    def test_the_agent_asks_for_its_own_node(self, base: str) -> None:
        objects = with_component(base, "apiserver")
        settings = settings_of(agent_of(objects), NODES[0], IN_CLUSTER)
        assert settings.pod_source.kind == "apiserver"
        assert settings.host.node_name == NODES[0]["spec.nodeName"]
        assert settings.pod_source.apiserver.url == "https://10.96.0.1:443"

    def test_its_one_right_is_to_list_and_watch_pods(self, base: str) -> None:
        objects = with_component(base, "apiserver")
        assert kinds(objects) == kinds(objects_of(base))
        role = one(objects, "ClusterRole")
        assert role["rules"] == [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
        ]
        assert_bound(objects, one(objects, "ServiceAccount"))

    def test_its_right_does_not_exclude_the_kubelets(self) -> None:
        names = {manifest["metadata"]["name"] for manifest in read(DEFAULT)}
        assert one(read(APISERVER_RBAC), "ClusterRole")["metadata"]["name"] not in names
        assert_bound(read(APISERVER_RBAC), one(read(DEFAULT), "ServiceAccount"))


class TestResourceClaims:
    def test_its_right_is_to_list_and_watch_claims_and_slices(self, base: str) -> None:
        before = {(made["kind"], made["metadata"]["name"]) for made in objects_of(base)}
        added = [
            made
            for made in with_component(base, "resource-claims")
            if (made["kind"], made["metadata"]["name"]) not in before
        ]
        assert kinds(added) == ["ClusterRole", "ClusterRoleBinding"]
        (rule,) = one(added, "ClusterRole")["rules"]
        assert rule == {
            "apiGroups": ["resource.k8s.io"],
            "resources": ["resourceclaims", "resourceslices"],
            "verbs": ["list", "watch"],
        }
        assert_bound(added, one(objects_of(base), "ServiceAccount"))

    def test_the_agent_follows_claims_of_its_own_node(self, base: str) -> None:
        objects = with_component(base, "resource-claims")
        settings = settings_of(agent_of(objects), NODES[0], IN_CLUSTER)
        assert (settings.pod_source.kind, settings.kubelet.resource_claims) == (
            "kubelet",
            "apiserver",
        )
        assert settings.host.node_name == NODES[0]["spec.nodeName"]

    def test_the_component_brings_its_token_beside_the_pods_api(self, base: str) -> None:
        objects = with_components(base, "pods-api", "resource-claims")
        settings = settings_of(agent_of(objects), NODES[0], IN_CLUSTER)
        assert (settings.pod_source.kind, settings.kubelet.resource_claims) == (
            "pods-api",
            "apiserver",
        )
        assert pod_of(objects)["automountServiceAccountToken"] is True


class TestPodsApi:
    def test_the_socket_is_where_the_flag_says(self, base: str) -> None:
        objects = with_component(base, "pods-api")
        settings = settings_of(agent_of(objects), NODES[0])
        assert settings.pod_source.kind == "pods-api"
        directory = str(Path(settings.kubelet.pods_api).parent)
        mount, volume = mounts_of(objects)[directory]
        assert mount["readOnly"] is True
        assert volume["hostPath"] == {"path": directory, "type": "DirectoryOrCreate"}

    def test_it_has_neither_a_right_nor_a_token(self, base: str) -> None:
        objects = with_component(base, "pods-api")
        rights = {"ClusterRole", "ClusterRoleBinding"}
        assert set(kinds(objects_of(base))) - set(kinds(objects)) == rights
        assert not rights & set(kinds(objects))
        assert pod_of(objects)["automountServiceAccountToken"] is False
