"""The Helm chart: with each of its values it makes the objects that the other ways make."""

from __future__ import annotations

import configparser
import subprocess

import kubernetes_validate
import pytest
import yaml
from netutil.agent.device_plugin.resource_name import is_extended_resource_name

from tests.manifests.chart import CHART, IMAGE, by_name, chart, rendered
from tests.manifests.test_sources import IN_CLUSTER
from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    NODES,
    NODES_PROXY,
    agent_of,
    one,
    pod_of,
    read,
    settings_of,
)
from tests.support.manifests.kubectl import find_helm
from tests.support.manifests.overlays import objects_of, with_component
from tests.support.repository import ROOT

RESOURCE = "netutil.example.com/agent"
# The API server and the kubelet take none of these names from a device plugin.
NO_RESOURCES = (
    *("netutil", "kubernetes.io/agent", "node.kubernetes.io/agent", "requests.example.com/agent"),
    *("-a.example.com/agent", "a..example.com/agent", "Example.com/agent", "example.com/"),
)


def test_the_default_chart_equals_the_file() -> None:
    assert by_name(chart()) == by_name(read(DEFAULT))


def test_hardened_it_makes_what_the_hardened_file_has() -> None:
    assert by_name(chart("hardened=true")) == by_name(read(HARDENED))


@pytest.mark.parametrize("hardened", [False, True], ids=["default", "hardened"])
@pytest.mark.parametrize("source", ["apiserver", "pods-api"])
def test_the_chart_for_another_source_equals_the_component(source: str, hardened: bool) -> None:
    values = (f"podSource={source}", f"hardened={str(hardened).lower()}")
    base = "hardened" if hardened else "default"
    assert by_name(chart(*values)) == by_name(with_component(base, source))


@pytest.mark.parametrize("hardened", [False, True], ids=["default", "hardened"])
def test_the_chart_with_claims_equals_the_component(hardened: bool) -> None:
    values = ("resourceClaims=apiserver", f"hardened={str(hardened).lower()}")
    base = "hardened" if hardened else "default"
    assert by_name(chart(*values)) == by_name(with_component(base, "resource-claims"))


@pytest.mark.parametrize("value", ["off", "false"])
@pytest.mark.parametrize("hardened", [False, True], ids=["default", "hardened"])
def test_the_chart_without_claims_equals_the_component(hardened: bool, value: str) -> None:
    values = (f"resourceClaims={value}", f"hardened={str(hardened).lower()}")
    base = "hardened" if hardened else "default"
    objects = chart(*values)
    assert by_name(objects) == by_name(with_component(base, "examples/without-claims"))
    assert settings_of(agent_of(objects), NODES[0], IN_CLUSTER).kubelet.resource_claims == "off"
    assert "plugins" not in {one["name"] for one in pod_of(objects)["volumes"]}


def test_claims_need_a_token_beside_the_pods_api_too() -> None:
    objects = chart("podSource=pods-api", "resourceClaims=apiserver")
    assert pod_of(objects)["automountServiceAccountToken"] is True
    assert (
        settings_of(agent_of(objects), NODES[0], IN_CLUSTER).kubelet.resource_claims == "apiserver"
    )


def test_claims_and_pods_of_the_api_server_go_together() -> None:
    roles = by_name(chart("podSource=apiserver", "resourceClaims=apiserver"))
    names = {name for kind, name in roles if kind == "ClusterRole"}
    assert names == {"netutil-agent-pods", "netutil-agent-resource-claims"}


@pytest.mark.parametrize("base", ["default", "hardened"])
def test_the_chart_with_device_plugin_equals_the_component(base: str) -> None:
    hardened = f"hardened={str(base == 'hardened').lower()}"
    objects = chart(f"devicePlugin.name={RESOURCE}", hardened)
    assert by_name(objects) == by_name(with_component(base, "device-plugin"))


def test_the_chart_for_self_signed_kubelets_equals_the_component() -> None:
    assert by_name(chart("kubelet.selfSigned=true")) == by_name(objects_of("self-signed-kubelet"))


def test_the_chart_for_old_kubelets_equals_the_file() -> None:
    more = by_name(read(NODES_PROXY))
    assert by_name(chart("kubelet.nodesProxy=true")) == {**by_name(read(DEFAULT)), **more}


def test_auto_keeps_the_right_and_adds_the_mount() -> None:
    objects = chart("podSource=auto")
    assert settings_of(agent_of(objects), NODES[0]).pod_source.kind == "auto"
    mounts = {mount["mountPath"] for mount in agent_of(objects)["volumeMounts"]}
    assert "/var/lib/kubelet/pods-api" in mounts
    assert pod_of(objects)["automountServiceAccountToken"] is True
    assert one(objects, "ClusterRole") == one(read(DEFAULT), "ClusterRole")


def test_flags_and_image_are_the_users() -> None:
    digest = f"sha256:{'0' * 64}"
    objects = chart(
        f"image.digest={digest}",
        "image.pullPolicy=Always",
        "imagePullSecrets[0].name=registry",
        "kubelet.verify=ca",
        'extraArgs=["--log-format=json","--pod-refresh=5"]',
        "podAnnotations.team=network",
        "quota=false",
    )
    settings = settings_of(agent_of(objects), NODES[0])
    assert (
        settings.kubelet.api.verify,
        settings.observability.log_format,
        settings.pod_source.refresh_seconds,
    ) == ("ca", "json", 5)
    assert agent_of(objects)["image"] == f"registry.example.com/netutil@{digest}"
    assert agent_of(objects)["imagePullPolicy"] == "Always"
    assert pod_of(objects)["imagePullSecrets"] == [{"name": "registry"}]
    template = one(objects, "DaemonSet")["spec"]["template"]
    assert template["metadata"]["annotations"]["team"] == "network"
    assert not [manifest for manifest in objects if manifest["kind"] == "ResourceQuota"]


@pytest.mark.parametrize(
    "values", [(), ("hardened=true",), ("podSource=auto",), (f"devicePlugin.name={RESOURCE}",)]
)
def test_is_valid(values: tuple[str, ...]) -> None:
    for manifest in chart(*values):
        for version in ("1.31", "1.37"):
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("podSource=file", "podSource"),
        ("resourceClaims=true", "resourceClaims"),
        ("hardenned=true", "hardenned"),
        ("kubelet.verify=maybe", "verify"),
        ('extraArgs=["log-format=json"]', "extraArgs"),
        ("image.digest=latest", "digest"),
        *((f"devicePlugin.name={name}", "devicePlugin") for name in NO_RESOURCES),
    ],
)
def test_values_that_mean_nothing_are_refused(value: str, named: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(value)
    assert named in refused.value.stderr


@pytest.mark.parametrize("name", NO_RESOURCES)
def test_the_agent_refuses_the_resources_that_helm_refuses(name: str) -> None:
    assert not is_extended_resource_name(name)


def test_helm_lint_finds_nothing() -> None:
    done = subprocess.run(
        [find_helm(), "lint", "--strict", str(CHART), f"--set={IMAGE}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_its_versions_are_the_packages() -> None:
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg")
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert {meta["version"], meta["appVersion"]} == {package["metadata"]["version"]}
    repository, _, tag = agent_of(read(DEFAULT))["image"].rpartition(":")
    assert agent_of(chart(f"image.repository={repository}", "guards=false"))["image"] == (
        f"{repository}:{tag}"
    )
