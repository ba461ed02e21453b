"""The DaemonSet, and the overlays on it: in agreement with the agent's flags and needs."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
from netutil.agent.config import SERVICE_ACCOUNT

from tests.support.manifests.documents import (
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
from tests.support.manifests.overlays import VARIANTS, objects_of


@pytest.fixture(params=VARIANTS)
def objects(request: pytest.FixtureRequest) -> list[Manifest]:
    return objects_of(request.param)


def test_is_valid(objects: list[Manifest]) -> None:
    hardened = "privileged" not in agent_of(objects)["securityContext"]
    for version in ("1.31" if hardened else "1.25", "1.33", "1.37"):
        for manifest in objects:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_has_just_these_objects(objects: list[Manifest]) -> None:
    assert sorted(manifest["kind"] for manifest in objects) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
        "Namespace",
        "ResourceQuota",
        "ServiceAccount",
    ]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node["status.podIP"])
def test_its_flags_are_the_agents(objects: list[Manifest], node: dict[str, str]) -> None:
    settings = settings_of(agent_of(objects), node)
    assert settings.observability.metrics_address == f"{node['status.podIP']}:9464"
    assert node["status.hostIP"] in settings.kubelet.api.url
    assert settings.host.root == "/host"


def test_its_volumes_are_where_the_flags_say(objects: list[Manifest]) -> None:
    settings = settings_of(agent_of(objects), NODES[0])
    mounts = mounts_of(objects)
    for path in (settings.sockets.pods, settings.sockets.admin):
        mount, volume = mounts[str(Path(path).parent)]
        assert volume["hostPath"] == {
            "path": mount["mountPath"],
            "type": "DirectoryOrCreate",
        }
        assert not mount.get("readOnly")
    for path, on_host in (
        (f"{settings.host.root}/sys", "/sys"),
        (
            str(Path(settings.kubelet.pod_resources).parent),
            str(Path(settings.kubelet.pod_resources).parent),
        ),
        (f"{settings.kubelet.root}/plugins", f"{settings.kubelet.root}/plugins"),
    ):
        mount, volume = mounts[path]
        assert mount["readOnly"] is True
        assert volume["hostPath"]["path"] == on_host
    writable = {path for path, (mount, _) in mounts.items() if not mount.get("readOnly")}
    assert writable == {"/run/netutil", "/run/netutil-admin", "/tmp"}
    assert "emptyDir" in mounts["/tmp"][1]


def test_an_unmount_of_a_volume_reaches_the_agent(objects: list[Manifest]) -> None:
    mount, _ = mounts_of(objects)["/var/lib/kubelet/plugins"]
    assert mount["mountPropagation"] == "HostToContainer"


def test_the_agent_has_its_token(objects: list[Manifest]) -> None:
    pod = pod_of(objects)
    assert pod["automountServiceAccountToken"] is True
    assert pod["serviceAccountName"] == one(objects, "ServiceAccount")["metadata"]["name"]
    settings = settings_of(agent_of(objects), NODES[0])
    assert settings.kubelet.api.token.startswith(SERVICE_ACCOUNT)


def test_it_is_on_every_linux_node_and_sees_its_processes(objects: list[Manifest]) -> None:
    pod = pod_of(objects)
    assert pod["hostPID"] is True
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    quota = one(objects, "ResourceQuota")["spec"]["scopeSelector"]["matchExpressions"]
    assert quota[0]["values"] == ["system-node-critical"]


def test_two_agents_fit_on_a_node_during_an_update(objects: list[Manifest]) -> None:
    spec = one(objects, "DaemonSet")["spec"]
    assert spec["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 0},
    }
    assert "hostNetwork" not in pod_of(objects)
    assert [set(port) for port in agent_of(objects)["ports"]] == [{"name", "containerPort"}]
    assert pod_of(objects)["terminationGracePeriodSeconds"] >= 15


def test_probes_are_http_on_the_port_of_the_metrics(objects: list[Manifest]) -> None:
    agent = agent_of(objects)
    (port,) = agent["ports"]
    address = settings_of(agent, NODES[0]).observability.metrics_address
    assert address.endswith(f":{port['containerPort']}")
    assert {kind: agent[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")} == {
        "startup": {"path": "/healthz", "port": port["name"]},
        "liveness": {"path": "/healthz", "port": port["name"]},
    }
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": port["name"]}
    template = one(objects, "DaemonSet")["spec"]["template"]
    annotations = template["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(port["containerPort"])


def test_it_is_bounded_in_memory_but_not_throttled(objects: list[Manifest]) -> None:
    resources = agent_of(objects)["resources"]
    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


def test_its_namespace_admits_it(objects: list[Manifest]) -> None:
    labels = one(objects, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    namespace = one(objects, "Namespace")["metadata"]["name"]
    for kind in ("ServiceAccount", "ResourceQuota", "DaemonSet"):
        assert one(objects, kind)["metadata"]["namespace"] == namespace


def test_the_selector_finds_the_pods(objects: list[Manifest]) -> None:
    spec = one(objects, "DaemonSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_its_one_right_is_to_read_the_kubelets_pods(objects: list[Manifest]) -> None:
    role = one(objects, "ClusterRole")
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}]
    assert_bound(objects, one(objects, "ServiceAccount"))


def test_its_file_system_is_read_only(objects: list[Manifest]) -> None:
    context = agent_of(objects)["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["runAsUser"] == 0


def test_the_default_one_is_privileged_and_sees_later_mounts() -> None:
    assert agent_of(read(DEFAULT))["securityContext"]["privileged"] is True
    mount, _ = mounts_of(read(DEFAULT))["/host/sys"]
    assert mount["mountPropagation"] == "HostToContainer"
