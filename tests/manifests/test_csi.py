"""The CSI driver's manifests: valid, in agreement with its flags, and alike in each way."""

from __future__ import annotations

import subprocess
from typing import Any

import kubernetes_validate
import pytest
from netutil.agent.csi.config import Config, parse

from tests.manifests.chart import chart
from tests.support.manifests.documents import (
    DEFAULT,
    EXAMPLE_POD,
    HARDENED,
    MANIFESTS,
    Manifest,
    one,
    read,
)
from tests.support.manifests.overlays import with_component

CSI = MANIFESTS / "csi"
EXAMPLE_POD_CSI = MANIFESTS / "examples" / "pod-csi.yaml"
FILES = (CSI / "csidriver.yaml", CSI / "daemonset.yaml")
VERSIONS = ("1.25", "1.30", "1.33", "1.37")


def driver_objects(objects: list[Manifest]) -> dict[str, Manifest]:
    """The objects of the driver by kind, the image's name left out."""
    found = {
        manifest["kind"]: manifest
        for manifest in objects
        if manifest["metadata"]["name"] in ("netutil-csi", "csi.netutil", "csi.example.com")
    }
    for container in found["DaemonSet"]["spec"]["template"]["spec"]["containers"]:
        container["image"] = "the agent's"
    return found


def in_files() -> dict[str, Manifest]:
    return driver_objects([manifest for path in FILES for manifest in read(path)])


def pod_of(objects: dict[str, Manifest]) -> Manifest:
    spec: Manifest = objects["DaemonSet"]["spec"]["template"]["spec"]
    return spec


def container_of(objects: dict[str, Manifest]) -> Manifest:
    (container,) = pod_of(objects)["containers"]
    return dict(container)


def config_of(arguments: list[str]) -> Config:
    return parse(arguments, {"NODE_NAME": "node-a"})


def mounts_of(objects: dict[str, Manifest]) -> dict[str, tuple[Manifest, Manifest]]:
    volumes = {volume["name"]: volume["hostPath"] for volume in pod_of(objects)["volumes"]}
    mounts = container_of(objects)["volumeMounts"]
    assert {mount["name"] for mount in mounts} == set(volumes)
    return {mount["mountPath"]: (mount, volumes[mount["name"]]) for mount in mounts}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_object_is_valid(version: str) -> None:
    for path in (*FILES, EXAMPLE_POD_CSI):
        for manifest in read(path):
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_the_flags_name_the_csidriver_object() -> None:
    objects = in_files()
    config = config_of(container_of(objects)["args"])
    assert objects["CSIDriver"]["metadata"]["name"] == config.name == "csi.netutil"
    assert objects["CSIDriver"]["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": True,
        "fsGroupPolicy": "None",
        "requiresRepublish": False,
        "storageCapacity": False,
        "seLinuxMount": False,
        "volumeLifecycleModes": ["Ephemeral"],
    }


@pytest.mark.parametrize("kubelet_root", ["/var/lib/kubelet", "/var/lib/k0s/kubelet"])
def test_each_path_is_the_same_on_the_host(kubelet_root: str) -> None:
    objects = driver_objects(chart("csi.enabled=true", f"kubeletRoot={kubelet_root}"))
    config = config_of(container_of(objects)["args"])
    mounts = mounts_of(objects)
    assert config.kubelet_root == kubelet_root
    assert all(volume["path"] == path for path, (_, volume) in mounts.items())
    socket = config.endpoint.rpartition("/")[0]
    assert set(mounts) == {config.source, config.pods, config.registry, socket}
    propagated = {path for path, (mount, _) in mounts.items() if "mountPropagation" in mount}
    assert propagated == {config.pods}
    assert mounts[config.pods][0]["mountPropagation"] == "Bidirectional"
    assert {path for path, (mount, _) in mounts.items() if mount.get("readOnly")} == {config.source}


def test_the_driver_has_neither_token_nor_host_namespaces() -> None:
    objects = in_files()
    pod = pod_of(objects)
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert not {"hostPID", "hostNetwork", "hostIPC", "initContainers"} & set(pod)
    assert "ports" not in container_of(objects)
    assert container_of(objects)["securityContext"] == {
        "privileged": True,
        "runAsUser": 0,
        "readOnlyRootFilesystem": True,
    }


def test_the_probe_checks_the_driver_of_the_flags() -> None:
    objects = driver_objects(chart("csi.enabled=true", "csi.name=csi.example.com"))
    container = container_of(objects)
    command, *arguments = container["livenessProbe"]["exec"]["command"]
    checked, driven = config_of(arguments), config_of(container["args"])
    assert [command] == container["command"] == ["netutil-csi"]
    assert checked.check and not driven.check
    assert (checked.name, checked.endpoint) == (driven.name, driven.endpoint)
    assert (checked.source, checked.registry) == (driven.source, driven.registry)


def test_each_selector_finds_its_own_pods_alone() -> None:
    driver, agent = in_files()["DaemonSet"]["spec"], one(read(DEFAULT), "DaemonSet")["spec"]
    for spec, other in ((driver, agent), (agent, driver)):
        selected = spec["selector"]["matchLabels"].items()
        assert selected <= spec["template"]["metadata"]["labels"].items()
        assert not selected <= other["template"]["metadata"]["labels"].items()


def test_an_update_leaves_no_node_without_driver() -> None:
    spec = in_files()["DaemonSet"]["spec"]
    assert spec["updateStrategy"]["rollingUpdate"] == {"maxSurge": "10%", "maxUnavailable": 0}
    annotations = spec["template"]["metadata"]["annotations"]
    assert annotations == {"cluster-autoscaler.kubernetes.io/enable-ds-eviction": "false"}


@pytest.mark.parametrize("base", ["default", "hardened"])
def test_the_component_adds_the_driver_alone(base: str) -> None:
    objects = with_component(base, "csi")
    assert driver_objects(objects) == in_files()
    others = [one for one in objects if "csi" not in one["metadata"]["name"]]
    file = read(HARDENED if base == "hardened" else DEFAULT)
    assert sorted(map(_name, others)) == sorted(map(_name, file))


def test_the_chart_makes_what_the_component_makes() -> None:
    assert driver_objects(chart("csi.enabled=true")) == in_files()


def test_the_chart_by_itself_has_no_driver() -> None:
    assert not [one for one in chart() if "csi" in one["metadata"]["name"]]


def test_the_charts_values_reach_the_driver() -> None:
    objects = driver_objects(
        chart(
            "csi.enabled=true",
            "csi.name=csi.example.com",
            "csi.resources.limits.memory=128Mi",
            "priorityClassName=high",
            "imagePullSecrets[0].name=registry",
            "image.pullPolicy=Always",
        )
    )
    assert objects["CSIDriver"]["metadata"]["name"] == "csi.example.com"
    assert "/var/lib/kubelet/plugins/csi.example.com" in mounts_of(objects)
    assert container_of(objects)["resources"]["limits"]["memory"] == "128Mi"
    assert container_of(objects)["imagePullPolicy"] == "Always"
    assert pod_of(objects)["priorityClassName"] == "high"
    assert pod_of(objects)["imagePullSecrets"] == [{"name": "registry"}]


def test_variables_labels_and_annotations_reach_the_driver() -> None:
    objects = driver_objects(
        chart(
            "csi.enabled=true",
            'csi.extraEnv=[{"name":"NETUTIL_CSI_LOG_FORMAT","value":"json"}]',
            'csi.podLabels={"team":"network"}',
            'csi.podAnnotations={"team":"network"}',
        )
    )
    container = container_of(objects)
    environment = {one["name"]: one.get("value", "node-a") for one in container["env"]}
    config = parse(container["args"], environment)
    assert (config.log_format, config.node_name) == ("json", "node-a")
    template = objects["DaemonSet"]["spec"]["template"]["metadata"]
    selector = objects["DaemonSet"]["spec"]["selector"]["matchLabels"]
    assert template["labels"] == {**selector, "team": "network"}
    assert template["annotations"] == {
        "cluster-autoscaler.kubernetes.io/enable-ds-eviction": "false",
        "team": "network",
    }


def test_the_account_of_the_driver_is_the_users() -> None:
    values = ("csi.enabled=true", "csi.serviceAccount.name=drivers")
    made = chart(*values, 'csi.serviceAccount.annotations={"example.com/role":"none"}')
    (account,) = (one for one in made if names_account(one, "drivers"))
    assert account["metadata"]["annotations"] == {"example.com/role": "none"}
    assert account["automountServiceAccountToken"] is False
    assert pod_of(driver_objects(made))["serviceAccountName"] == "drivers"
    kept = chart(*values, "csi.serviceAccount.create=false")
    assert not [one for one in kept if names_account(one, "drivers")]
    assert pod_of(driver_objects(kept))["serviceAccountName"] == "drivers"


def names_account(manifest: Manifest, name: str) -> bool:
    return (manifest["kind"], manifest["metadata"]["name"]) == ("ServiceAccount", name)


@pytest.mark.parametrize(
    "value",
    [
        "csi.name=CSI",
        "csi.serviceAccount.name=netutil-agent",
        'csi.extraEnv=[{"name":"NETUTIL_CSI_SOURCE","value":"/run"}]',
        'csi.extraEnv=[{"name":"NODE_NAME","value":"a"}]',
        'csi.podLabels={"app.kubernetes.io/component":"agent"}',
        "csi.name=../x",
        "csi.enable=true",
        "kubeletRoot=var/lib",
        "kubeletRoot=/a/..",
    ],
)
def test_the_chart_rejects_ill_formed_values(value: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        chart("csi.enabled=true", value)


def test_the_example_differs_by_its_volume_alone() -> None:
    csi, host_path = (one(read(path), "Pod") for path in (EXAMPLE_POD_CSI, EXAMPLE_POD))
    assert csi["spec"]["volumes"] == [
        {"name": "netutil", "csi": {"driver": "csi.netutil", "readOnly": True}}
    ]
    for pod in (csi, host_path):
        del pod["spec"]["volumes"], pod["metadata"]["name"]
    assert csi == host_path


def _name(manifest: dict[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
