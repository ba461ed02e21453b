"""The values of the chart: what each of them changes, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.chart import by_name, chart, rendered
from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    MANIFESTS,
    NODES,
    Manifest,
    agent_of,
    assert_bound,
    environment_of,
    initial_of,
    mounts_of,
    one,
    pod_of,
    read,
    settings_of,
)
from tests.support.manifests.overlays import with_component, with_components

COMPONENTS = {
    "networkPolicy.enabled=true": "networkpolicy",
    "selinux.relabel=true": "selinux",
    "openshift.scc=true": "openshift",
}


def kinds(objects: list[Manifest]) -> set[str]:
    return {manifest["kind"] for manifest in objects}


def template_of(objects: list[Manifest]) -> Manifest:
    template: Manifest = one(objects, "DaemonSet")["spec"]["template"]["metadata"]
    return template


@pytest.mark.parametrize("value", COMPONENTS)
def test_a_value_makes_what_its_component_makes(value: str) -> None:
    assert by_name(chart(value)) == by_name(with_component("default", COMPONENTS[value]))


@pytest.mark.parametrize("value", COMPONENTS)
def test_a_value_makes_the_same_of_the_hardened_variant(value: str) -> None:
    component = COMPONENTS[value]
    component = f"hardened/{component}" if component == "openshift" else component
    assert by_name(chart(value, "hardened=true")) == by_name(with_component("hardened", component))


def test_monitoring_makes_what_the_component_makes() -> None:
    objects = chart("podMonitor.enabled=true", "alerts.enabled=true", "dashboard.enabled=true")
    made, expected = by_name(objects), by_name(with_component("default", "monitoring"))
    board = ("ConfigMap", "netutil-dashboard")
    texts = [found[board]["data"].pop("dashboard.json") for found in (made, expected)]
    assert json.loads(texts[0]) == json.loads(texts[1])
    assert made == expected


def test_monitoring_has_the_users_labels_and_interval() -> None:
    objects = chart(
        "podMonitor.enabled=true",
        "podMonitor.labels.release=prometheus",
        "podMonitor.interval=15s",
        "alerts.enabled=true",
        "alerts.labels.release=prometheus",
    )
    for kind in ("PodMonitor", "PrometheusRule"):
        assert one(objects, kind)["metadata"]["labels"] == {
            "app.kubernetes.io/name": "netutil",
            "release": "prometheus",
        }
    assert one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["interval"] == "15s"


def test_the_alerts_look_at_the_namespace_of_the_release() -> None:
    rules = one(chart("alerts.enabled=true"), "PrometheusRule")["spec"]
    file = one(read(MANIFESTS / "monitoring" / "alerts.yaml"), "PrometheusRule")["spec"]
    assert rules == file
    text = json.dumps(file)
    assert text.count('namespace=\\"netutil\\"') == text.count("namespace=") == 1


@pytest.mark.parametrize("hardened", [False, True], ids=["default", "hardened"])
def test_each_path_of_the_kubelet_follows_its_root(hardened: bool) -> None:
    values = (
        *(f"hardened={str(hardened).lower()}", "podSource=auto", "kubelet.selfSigned=true"),
        "devicePlugin.name=example.com/netutil",
    )
    default = rendered(*values)
    moved = rendered(*values, "kubeletRoot=/var/lib/k0s/kubelet")
    assert "/var/lib/kubelet" in default
    assert moved == default.replace("/var/lib/kubelet", "/var/lib/k0s/kubelet")


def test_the_kubelets_certificate_may_be_elsewhere() -> None:
    path = "/var/snap/microk8s/current/certs/kubelet.crt"
    objects = chart("kubelet.selfSigned=true", f"kubelet.certificate={path}")
    _, volume = mounts_of(objects)["/etc/kubelet.crt"]
    assert volume["hostPath"] == {"path": path, "type": "File"}


def test_an_annotation_of_the_user_replaces_the_charts() -> None:
    annotations = template_of(
        chart(r'podAnnotations={"prometheus.io/scrape":"false","team":"network"}')
    )["annotations"]
    assert annotations == {
        "kubectl.kubernetes.io/default-container": "agent",
        "prometheus.io/scrape": "false",
        "prometheus.io/port": "9464",
        "team": "network",
    }


def test_labels_of_the_user_keep_the_selector() -> None:
    objects = chart('podLabels={"team":"network"}')
    selector = one(objects, "DaemonSet")["spec"]["selector"]["matchLabels"]
    assert template_of(objects)["labels"] == {**selector, "team": "network"}


@pytest.mark.parametrize("key", ["app.kubernetes.io/name", "app.kubernetes.io/component"])
def test_a_label_of_the_selector_is_refused(key: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(f'podLabels={{"{key}":"other"}}')
    assert key in refused.value.stderr


def test_no_quota_is_made_without_a_priority_class() -> None:
    objects = chart("priorityClassName=")
    assert "priorityClassName" not in pod_of(objects)
    assert "ResourceQuota" not in kinds(objects)


def test_the_quota_admits_another_priority_class() -> None:
    objects = chart("priorityClassName=node-agents")
    (scope,) = one(objects, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert scope["values"] == [pod_of(objects)["priorityClassName"]] == ["node-agents"]


@pytest.mark.parametrize("source", ["kubelet", "apiserver"])
def test_every_permission_is_for_the_account_of_the_user(source: str) -> None:
    values = (
        f"podSource={source}",
        "serviceAccount.name=agents",
        'serviceAccount.annotations={"example.com/role":"reader"}',
    )
    objects = chart(*values, "openshift.scc=true")
    account = one(objects, "ServiceAccount")
    assert account["metadata"]["annotations"] == {"example.com/role": "reader"}
    assert pod_of(objects)["serviceAccountName"] == account["metadata"]["name"] == "agents"
    assert_bound(objects, account)
    assert one(objects, "SecurityContextConstraints")["users"] == [
        "system:serviceaccount:netutil:agents"
    ]


def test_an_account_that_exists_is_not_made() -> None:
    objects = chart("serviceAccount.create=false", "serviceAccount.name=agents")
    assert "ServiceAccount" not in kinds(objects)
    assert pod_of(objects)["serviceAccountName"] == "agents"
    (subject,) = one(objects, "ClusterRoleBinding")["subjects"]
    assert subject["name"] == "agents"


def test_extra_variables_volumes_and_mounts_reach_the_agent() -> None:
    objects = chart(
        'extraEnv=[{"name":"NETUTIL_LOG_FORMAT","value":"json"}]',
        'extraVolumes=[{"name":"ca","configMap":{"name":"kubelet-ca"}}]',
        'extraVolumeMounts=[{"name":"ca","mountPath":"/etc/kubelet-ca","readOnly":true}]',
        'extraArgs=["--kubelet-ca=/etc/kubelet-ca/ca.crt"]',
    )
    settings = settings_of(agent_of(objects), NODES[0])
    assert (settings.log_format, settings.kubelet_ca) == ("json", "/etc/kubelet-ca/ca.crt")
    mount, volume = mounts_of(objects)["/etc/kubelet-ca"]
    assert volume == {"name": "ca", "configMap": {"name": "kubelet-ca"}}
    assert mount["readOnly"] is True
    assert environment_of(agent_of(objects), NODES[0])["POD_IP"] == NODES[0]["status.podIP"]


def test_the_constraints_admit_the_volumes_of_the_user() -> None:
    volumes = [
        {"name": "ca", "configMap": {"name": "kubelet-ca"}},
        {"name": "key", "secret": {"secretName": "key"}},
        {"name": "more", "configMap": {"name": "more"}},
    ]
    objects = chart(f"extraVolumes={json.dumps(volumes)}", "openshift.scc=true")
    constraints = one(objects, "SecurityContextConstraints")
    added = {"configMap", "secret"}
    assert constraints["volumes"] == sorted({"emptyDir", "hostPath", "projected"} | added)


def test_affinity_is_the_users() -> None:
    term = {"key": "node.example.com/kind", "operator": "NotIn", "values": ["virtual"]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [term]}]
            }
        }
    }
    assert pod_of(chart(f"affinity={json.dumps(affinity)}"))["affinity"] == affinity
    assert "affinity" not in pod_of(chart())


@pytest.mark.parametrize(
    ("surge", "unavailable"), [(2, 0), ("100%", 0), (0, 1), ("0%", "10%"), (0, "100%")]
)
def test_the_update_strategy_is_the_users(surge: Any, unavailable: Any) -> None:
    strategy = {"maxSurge": surge, "maxUnavailable": unavailable}
    objects = chart(f"updateStrategy={json.dumps(strategy)}")
    assert one(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"] == strategy


def test_both_init_containers_run_in_the_hardened_variant() -> None:
    objects = chart("hardened=true", "selinux.relabel=true", "image.pullPolicy=Always")
    assert [one["name"] for one in initial_of(objects)] == ["selinux-label", "seccomp-profile"]
    assert {one["imagePullPolicy"] for one in initial_of(objects)} == {"Always"}
    made = with_components("hardened", "selinux")
    assert {one["name"] for one in initial_of(made)} == {"selinux-label", "seccomp-profile"}


@pytest.mark.parametrize("path", [DEFAULT, HARDENED], ids=["default", "hardened"])
def test_one_broken_node_blocks_no_update_of_eleven(path: Path) -> None:
    """Its new agent uses one unit of the surge until it is ready; a share is rounded up."""
    strategy = one(read(path), "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    percent = int(strategy["maxSurge"].removesuffix("%"))
    assert -(-11 * percent // 100) > 1
    assert -(-10 * percent // 100) == 1  # as docs/install.md says of small clusters


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("kubeletRoot=var/lib/kubelet", "kubeletRoot"),
        ("kubeletRoot=/var/lib/kubelet/", "kubeletRoot"),
        ("kubeletRoot=/var/../kubelet", "kubeletRoot"),
        ("kubeletRoot=/", "kubeletRoot"),
        ("kubelet.certificate=kubelet.crt", "certificate"),
        ("updateStrategy.maxSurge=ten", "maxSurge"),
        ("updateStrategy.maxSurge=101%", "maxSurge"),
        ("updateStrategy.maxUnavailable=-1", "maxUnavailable"),
        ("updateStrategy.type=OnDelete", "type"),
        ("serviceAccount.name=Agents", "name"),
        ("serviceAccount.name=", "name"),
        ('extraEnv=[{"name":"POD_IP","value":"127.0.0.1"}]', "extraEnv"),
        ('extraVolumeMounts=[{"name":"ca"}]', "mountPath"),
        ("podMonitor.interval=soon", "interval"),
        ("networkPolicy.from=[]", "from"),
        ("networkPolicy.from=[{}]", "from"),
        ("selinux.label=true", "label"),
        ("openshift.enabled=true", "enabled"),
        ("affinity=none", "affinity"),
        ("guards=no-thanks", "guards"),
    ],
)
def test_an_ill_formed_value_is_refused(value: str, named: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(value)
    assert named in refused.value.stderr
