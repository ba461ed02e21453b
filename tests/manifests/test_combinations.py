"""Components and values together: whatever is combined, each pod is whole.

The components are of two kinds. Those that patch the DaemonSet of the agent meet each other in all
sets. Those that only add objects meet each other in all sets, and the patches in the two sets that
matter: none of them, and all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, combinations, product

import kubernetes_validate
import pytest
import yaml
from netutil.agent.csi.config import parse

from tests.manifests.chart import chart, charts
from tests.manifests.scc import rejections
from tests.support.manifests.documents import (
    MANIFESTS,
    NODES,
    Manifest,
    agent_of,
    assert_bound,
    initial_of,
    mounts_of,
    one,
    pod_of,
    settings_of,
)
from tests.support.manifests.overlays import BASES, objects_of, with_components

Name = tuple[str, str]

SOURCES = ("kubelet", "apiserver", "pods-api")
# Those of resource-claims come after those of the source, as docs/install.md says.
PATCHES = ("examples/self-signed-kubelet", "selinux", "device-plugin", "resource-claims")
ADDITIONS: dict[str, set[Name]] = {
    "monitoring": {
        ("PodMonitor", "netutil-agent"),
        ("PrometheusRule", "netutil-agent"),
        ("ConfigMap", "netutil-dashboard"),
    },
    "networkpolicy": {("NetworkPolicy", "netutil-agent")},
    "openshift": {("SecurityContextConstraints", "netutil-agent")},
    "csi": {
        ("CSIDriver", "csi.netutil"),
        ("DaemonSet", "netutil-csi"),
        ("ServiceAccount", "netutil-csi"),
    },
    "csi/openshift": {("SecurityContextConstraints", "netutil-csi")},
}
IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
FOREIGN = {"PodMonitor", "PrometheusRule", "SecurityContextConstraints"}
# The values that change the DaemonSet in more than one place, and those that go together.
SWITCHES = (
    ("hardened=false", "hardened=true"),
    ("podSource=kubelet", "podSource=apiserver", "podSource=pods-api", "podSource=auto"),
    ("kubelet.selfSigned=false", "kubelet.selfSigned=true"),
    ("selinux.relabel=false", "selinux.relabel=true"),
    ("kubeletRoot=/var/lib/kubelet", "kubeletRoot=/var/lib/k0s/kubelet"),
    ("devicePlugin.name=", "devicePlugin.name=example.com/netutil"),
    ("resourceClaims=node", "resourceClaims=apiserver"),
    ("csi.enabled=false", "csi.enabled=true"),
    ("openshift.scc=false", "openshift.scc=true"),
)
REST = (
    *("kubelet.nodesProxy=true", "networkPolicy.enabled=true", "csi.name=csi.example.com"),
    *("podMonitor.enabled=true", "alerts.enabled=true", "dashboard.enabled=true"),
    *("priorityClassName=", "serviceAccount.name=agents", 'podLabels={"team":"network"}'),
    *('podAnnotations={"prometheus.io/scrape":"false"}', 'affinity={"nodeAffinity":{}}'),
    'extraVolumes=[{"name":"ca","configMap":{"name":"ca"}}]',
    'extraVolumeMounts=[{"name":"ca","mountPath":"/etc/ca","readOnly":true}]',
    'csi.extraEnv=[{"name":"NETUTIL_CSI_LOG_FORMAT","value":"json"}]',
    *('csi.podLabels={"team":"network"}', "csi.serviceAccount.name=drivers"),
    *('extraEnv=[{"name":"NETUTIL_LOG_FORMAT","value":"json"}]', 'extraArgs=["--pod-refresh=5"]'),
)


def names_of(objects: list[Manifest]) -> list[Name]:
    return [(found["kind"], found["metadata"]["name"]) for found in objects]


def subsets(of: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(of, size) for size in range(len(of) + 1))


def assert_whole(objects: list[Manifest], source: str, chosen: set[str]) -> None:
    """The flags are the agent's, each mount has its volume, and no other image is used.

    `chosen` has the names of the components that patch the agent's DaemonSet.
    """
    names = names_of(objects)
    assert len(set(names)) == len(names)
    settings = settings_of(agent_of(objects), NODES[0], IN_CLUSTER)
    self_signed = "examples/self-signed-kubelet" in chosen
    assert settings.pod_source.kind == source
    assert settings.kubelet.api.verify == ("ca" if self_signed else "full")
    assert bool(settings.kubelet.device_plugin) is ("device-plugin" in chosen)
    claims = "resource-claims" in chosen
    kept = "off" if "examples/without-claims" in chosen else "node"
    assert settings.kubelet.resource_claims == ("apiserver" if claims else kept)
    assert any("/plugins" in path for path in mounts_of(objects)) is (claims or kept != "off")
    assert pod_of(objects)["automountServiceAccountToken"] is (claims or source != "pods-api")
    directories = {settings.kubelet.pod_resources.rpartition("/")[0]}
    if source in ("pods-api", "auto"):
        directories.add(settings.kubelet.pods_api.rpartition("/")[0])
    if settings.kubelet.device_plugin:
        directories.add(settings.kubelet.device_plugin_dir)
    mounts = mounts_of(objects)
    for directory in directories:
        assert mounts[directory][1]["hostPath"]["path"] == directory
    assert ("/etc/kubelet.crt" in mounts) is self_signed
    labelled = [one["name"] for one in initial_of(objects)].count("selinux-label")
    assert labelled == ("selinux" in chosen)
    assert_rights(objects, source, claims=claims)
    daemonsets = [name for kind, name in names if kind == "DaemonSet"]
    containers = [
        container
        for name in daemonsets
        for container in (
            *pod_of(objects, name)["containers"],
            *pod_of(objects, name).get("initContainers", []),
        )
    ]
    assert len({container["image"] for container in containers}) == 1


def assert_rights(objects: list[Manifest], source: str, *, claims: bool) -> None:
    """Each role is bound to the account of the agent, and no role is there that nothing needs."""
    roles = {name for kind, name in names_of(objects) if kind == "ClusterRole"}
    sources = {"kubelet": {"netutil-agent"}, "apiserver": {"netutil-agent-pods"}, "pods-api": set()}
    needed = sources.get(source, {"netutil-agent"}) | (
        {"netutil-agent-resource-claims"} if claims else set()
    )
    assert roles - {"netutil-agent-nodes-proxy"} == needed
    account = pod_of(objects)["serviceAccountName"]
    bindings = [found for found in objects if found["kind"] == "ClusterRoleBinding"]
    assert {binding["roleRef"]["name"] for binding in bindings} == roles
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert (subject["kind"], subject["name"]) == ("ServiceAccount", account)
    if len(bindings) == 1:
        accounts = [one for one in objects if one["metadata"]["name"] == account]
        assert_bound(objects, one(accounts, "ServiceAccount"))


def assert_driver_whole(objects: list[Manifest], kubelet_root: str) -> None:
    """The driver's flags name its CSIDriver object, and its directories are mounted."""
    (container,) = pod_of(objects, "netutil-csi")["containers"]
    config = parse(container["args"], {"NODE_NAME": "node-a"})
    assert one(objects, "CSIDriver")["metadata"]["name"] == config.name
    assert config.kubelet_root == kubelet_root
    volumes = {
        volume["name"]: volume["hostPath"]["path"]
        for volume in pod_of(objects, "netutil-csi")["volumes"]
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    socket_directory = config.endpoint.rpartition("/")[0]
    assert set(mounts) == {config.source, config.pods, config.registry, socket_directory}
    assert {path: volumes[name] for path, name in mounts.items()} == {path: path for path in mounts}


def assert_admitted(objects: list[Manifest], name: str) -> None:
    """The constraints of that name admit the pods of the DaemonSet of that name, by its account."""
    named = [found for found in objects if found["metadata"]["name"] == name]
    constraints, pod = one(named, "SecurityContextConstraints"), pod_of(objects, name)
    assert rejections(constraints, pod) == set()
    account = f"system:serviceaccount:netutil:{pod['serviceAccountName']}"
    assert constraints["users"] == [account]


def assert_valid(objects: list[Manifest]) -> None:
    """The API server of the newest version that is known takes each object that is its own."""
    for manifest in objects:
        if manifest["kind"] not in FOREIGN:
            assert kubernetes_validate.validate(manifest, "1.37", strict=True) == "1.37"


def own_component(base: str, component: str) -> str:
    """The hardened variant has constraints of its own."""
    return "hardened/openshift" if (base, component) == ("hardened", "openshift") else component


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("base", BASES)
def test_every_set_of_patches_is_whole(base: str, source: str) -> None:
    added = set().union(*ADDITIONS.values())
    first = () if source == "kubelet" else (source,)
    everything = tuple(own_component(base, component) for component in ADDITIONS)
    for chosen in subsets(PATCHES):
        alone = with_components(base, *first, *chosen)
        assert_whole(alone, source, set(chosen))
        assert not added & set(names_of(alone))
        # Listed before the patches, so that a patch could reach the driver's DaemonSet.
        beside = with_components(base, *everything, *first, *chosen)
        assert_whole(beside, source, set(chosen))
        assert_driver_whole(beside, "/var/lib/kubelet")
        assert_admitted(beside, "netutil-agent")
        assert_admitted(beside, "netutil-csi")
        assert set(names_of(beside)) == set(names_of(alone)) | added
        kept = [found for found in beside if found in alone]
        assert len(kept) == len(alone)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("base", BASES)
def test_an_agent_without_claims_is_whole(base: str, source: str) -> None:
    first = () if source == "kubelet" else (source,)
    chosen = (*(one for one in PATCHES if one != "resource-claims"), "examples/without-claims")
    objects = with_components(base, *first, *chosen)
    assert_whole(objects, source, set(chosen))
    assert_valid(objects)


@pytest.mark.parametrize("base", BASES)
def test_every_set_of_additions_adds_its_objects(base: str) -> None:
    plain = objects_of(base)
    for chosen in subsets(tuple(ADDITIONS)):
        objects = with_components(base, *(own_component(base, one) for one in chosen))
        names = names_of(objects)
        expected = set(names_of(plain)).union(*(ADDITIONS[component] for component in chosen))
        assert len(names) == len(set(names))
        assert set(names) == expected
        assert_whole(objects, "kubelet", set())
        if "csi" in chosen:
            assert_driver_whole(objects, "/var/lib/kubelet")
        if "openshift" in chosen:
            assert_admitted(objects, "netutil-agent")
        if {"csi", "csi/openshift"} <= set(chosen):
            assert_admitted(objects, "netutil-csi")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("source", SOURCES)
def test_all_components_together_are_valid(base: str, source: str) -> None:
    first = () if source == "kubelet" else (source,)
    everything = tuple(own_component(base, component) for component in ADDITIONS)
    assert_valid(with_components(base, *everything, *first, *PATCHES))
    assert_valid(with_components(base, *first, *PATCHES))


def test_no_component_is_left_out() -> None:
    found = {
        path.parent.relative_to(MANIFESTS).as_posix()
        for path in MANIFESTS.rglob("kustomization.yaml")
        if yaml.safe_load(path.read_text(encoding="utf-8"))["kind"] == "Component"
    }
    sources = set(SOURCES) - {"kubelet"}
    others = {"hardened/openshift", "examples/without-claims"}  # this one excludes resource-claims
    assert found == {*PATCHES, *ADDITIONS, *sources, *others}


@pytest.mark.parametrize("component", ADDITIONS)
def test_an_addition_has_no_patch(component: str) -> None:
    """So that a set of additions cannot change what a set of patches makes."""
    path = MANIFESTS / component / "kustomization.yaml"
    made = yaml.safe_load(path.read_text(encoding="utf-8"))
    allowed = {"apiVersion", "kind", "resources", "configMapGenerator", "generatorOptions"}
    assert set(made) <= allowed


@pytest.mark.parametrize("rest", [(), REST], ids=["others off", "others on"])
@pytest.mark.parametrize("switches", list(product(*SWITCHES[:2])), ids=" ".join)
def test_every_set_of_values_is_whole(switches: tuple[str, ...], rest: tuple[str, ...]) -> None:
    source = switches[1].partition("=")[2]
    sets = [(*switches, *more, *rest) for more in product(*SWITCHES[2:])]
    for values, objects in zip(sets, charts(sets), strict=True):
        chosen = {component for value, component in _COMPONENT_OF.items() if value in values}
        assert_whole(objects, source, chosen)
        names = set(names_of(objects))
        root = next(value for value in values if value.startswith("kubeletRoot")).split("=")[1]
        scc = "openshift.scc=true" in values
        csi = "csi.enabled=true" in values
        driver = "csi.example.com" if rest else "csi.netutil"
        assert (("CSIDriver", driver) in names) is csi
        assert (("DaemonSet", "netutil-csi") in names) is csi
        assert (("SecurityContextConstraints", "netutil-agent") in names) is scc
        assert (("SecurityContextConstraints", "netutil-csi") in names) is (scc and csi)
        assert (("NetworkPolicy", "netutil-agent") in names) is bool(rest)
        if csi:
            assert_driver_whole(objects, root)
        if scc:
            assert_admitted(objects, "netutil-agent")
        if scc and csi:
            assert_admitted(objects, "netutil-csi")
        other = {"/var/lib/kubelet", "/var/lib/k0s/kubelet"} - {root}
        assert not [path for path in host_paths(objects) if path.startswith(tuple(other))]


_COMPONENT_OF = {
    "kubelet.selfSigned=true": "examples/self-signed-kubelet",
    "selinux.relabel=true": "selinux",
    "devicePlugin.name=example.com/netutil": "device-plugin",
    "resourceClaims=apiserver": "resource-claims",
}


def host_paths(objects: list[Manifest]) -> list[str]:
    """The paths of the node that the pods of all DaemonSets mount."""
    return [
        str(volume["hostPath"]["path"])
        for kind, name in names_of(objects)
        if kind == "DaemonSet"
        for volume in pod_of(objects, name)["volumes"]
        if "hostPath" in volume
    ]


def test_one_run_of_helm_makes_what_many_make() -> None:
    sets = [(), ("hardened=true", "csi.enabled=true"), REST]
    assert charts(sets) == [chart(*values) for values in sets]


@pytest.mark.parametrize("hardened", ["false", "true"])
@pytest.mark.parametrize("source", ["kubelet", "apiserver", "pods-api", "auto"])
def test_everything_at_once_is_valid(source: str, hardened: str) -> None:
    switches = [values[-1] for values in SWITCHES[2:]]
    made = chart(f"hardened={hardened}", f"podSource={source}", *switches, *REST)
    kinds = {manifest["kind"] for manifest in made}
    assert FOREIGN | {"NetworkPolicy", "ConfigMap", "DaemonSet", "CSIDriver"} <= kinds
    assert_valid(made)
