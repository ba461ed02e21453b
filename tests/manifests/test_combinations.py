"""Components and values together: whatever is combined, the agent's pod is whole."""

from __future__ import annotations

from itertools import chain, combinations, product

import kubernetes_validate
import pytest

from tests.manifests.chart import chart
from tests.support.manifests.documents import (
    NODES,
    Manifest,
    agent_of,
    assert_bound,
    initial_of,
    mounts_of,
    one,
    settings_of,
)
from tests.support.manifests.overlays import BASES, with_components

SOURCES = ("kubelet", "apiserver", "pods-api")
OTHERS = ("examples/self-signed-kubelet", "monitoring", "networkpolicy", "selinux", "openshift")
IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
# The values that change the DaemonSet in more than one place.
SWITCHES = (
    ("hardened=false", "hardened=true"),
    ("podSource=kubelet", "podSource=apiserver", "podSource=pods-api", "podSource=auto"),
    ("kubelet.selfSigned=false", "kubelet.selfSigned=true"),
    ("selinux.relabel=false", "selinux.relabel=true"),
    ("kubeletRoot=/var/lib/kubelet", "kubeletRoot=/var/lib/k0s/kubelet"),
)
REST = (
    *("devicePlugin.name=example.com/netutil", "kubelet.nodesProxy=true"),
    *("openshift.scc=true", "networkPolicy.enabled=true"),
    *("podMonitor.enabled=true", "alerts.enabled=true", "dashboard.enabled=true"),
    *("priorityClassName=", "serviceAccount.name=agents", 'podLabels={"team":"network"}'),
    *('podAnnotations={"prometheus.io/scrape":"false"}', 'affinity={"nodeAffinity":{}}'),
    'extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]',
    'extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ca","readOnly":true}]',
    *('extraEnv=[{"name":"NETUTIL_LOG_FORMAT","value":"json"}]', 'extraArgs=["--pod-refresh=5"]'),
)


def assert_whole(objects: list[Manifest], source: str, self_signed: bool) -> None:
    """The flags are the agent's, each mount has its volume, and no other image is used."""
    names = [(found["kind"], found["metadata"]["name"]) for found in objects]
    assert len(set(names)) == len(names)
    settings = settings_of(agent_of(objects), NODES[0], IN_CLUSTER)
    assert settings.pod_source == source
    assert settings.kubelet_verify == ("ca" if self_signed else "full")
    directories = {settings.pod_resources.rpartition("/")[0]}
    if source in ("pods-api", "auto"):
        directories.add(settings.pods_api.rpartition("/")[0])
    if settings.device_plugin:
        directories.add(settings.device_plugin_dir)
    mounts = mounts_of(objects)
    for directory in directories:
        assert mounts[directory][1]["hostPath"]["path"] == directory
    assert ("/etc/kubelet.crt" in mounts) is self_signed
    assert len({one["image"] for one in (agent_of(objects), *initial_of(objects))}) == 1
    bound = [found for found in objects if found["kind"] == "ClusterRoleBinding"]
    roles = {found["metadata"]["name"] for found in objects if found["kind"] == "ClusterRole"}
    assert {binding["roleRef"]["name"] for binding in bound} == roles
    if len(bound) == 1:
        assert_bound(objects, one(objects, "ServiceAccount"))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("base", BASES)
def test_every_set_of_components_is_whole(base: str, source: str) -> None:
    own = {"openshift": "hardened/openshift"} if base == "hardened" else {}
    first = () if source == "kubelet" else (source,)
    for chosen in chain.from_iterable(combinations(OTHERS, size) for size in range(6)):
        components = [own.get(component, component) for component in chosen]
        objects = with_components(base, *first, *components)
        assert_whole(objects, source, "examples/self-signed-kubelet" in chosen)


@pytest.mark.parametrize("rest", [(), REST], ids=["others off", "others on"])
@pytest.mark.parametrize("switches", list(product(*SWITCHES[:2])), ids=" ".join)
def test_every_set_of_values_is_whole(switches: tuple[str, ...], rest: tuple[str, ...]) -> None:
    source = switches[1].partition("=")[2]
    for more in product(*SWITCHES[2:]):
        objects = chart(*switches, *more, *rest)
        assert_whole(objects, source, "kubelet.selfSigned=true" in more)


@pytest.mark.parametrize("hardened", ["false", "true"])
def test_everything_at_once_is_valid(hardened: str) -> None:
    values = (f"hardened={hardened}", "podSource=auto", "kubelet.selfSigned=true")
    made = chart(*values, "selinux.relabel=true", *REST)
    foreign = {"PodMonitor", "PrometheusRule", "SecurityContextConstraints"}
    kinds = {manifest["kind"] for manifest in made}
    assert foreign | {"NetworkPolicy", "ConfigMap", "DaemonSet"} <= kinds
    for manifest in made:
        if manifest["kind"] not in foreign:
            assert kubernetes_validate.validate(manifest, "1.37", strict=True) == "1.37"
