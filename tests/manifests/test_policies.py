"""The policies for pods with the CSI volume or the device, and the examples of such pods."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.manifests.admission import mutated, policy, refusals
from tests.manifests.test_admission import INSIDE
from tests.support.manifests.documents import (
    CSI_POD,
    CSI_POLICY,
    DEFAULT,
    DEVICE_PLUGIN_POD,
    DEVICE_PLUGIN_POLICY,
    EXAMPLE_POD,
    HOSTPATH_POLICY,
    NODES,
    Manifest,
    agent_of,
    documents,
    one,
    read,
    settings_of,
)
from tests.support.manifests.kubectl import find_kubectl, kustomize
from tests.support.manifests.overlays import with_component

RESOURCE = "netutil.example.com/agent"
DRIVER = "csi.netutil"


def csi(name: str = "netutil", driver: str = DRIVER, **more: Any) -> Manifest:
    return {"name": name, "csi": {"driver": driver, **more}}


def pod(*volumes: Manifest) -> Manifest:
    return {"spec": {"volumes": list(volumes), "containers": [{"name": "app", "image": "app"}]}}


class TestCsiReadOnly:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"readOnly": False},
            {"volumeAttributes": {"a": "b"}},
            {"fsType": "ext4", "readOnly": False},
        ],
    )
    def test_the_volume_becomes_read_only(self, more: Manifest) -> None:
        changed = mutated(pod(csi(**more)), CSI_POLICY)
        assert changed == pod(csi(**{**more, "readOnly": True}))

    @pytest.mark.parametrize(
        "unchanged",
        [
            {"spec": {"containers": [{"name": "app", "image": "app"}]}},
            pod(),
            pod({"name": "data", "emptyDir": {}}),
            pod(csi(readOnly=True)),
            pod(csi(driver="csi.example.com")),
            pod(csi(driver="csi.netutil.example.com", readOnly=False)),
            pod({"name": "netutil", "hostPath": {"path": "/run/netutil"}}),
        ],
    )
    def test_another_pod_stays_as_it_is(self, unchanged: Manifest) -> None:
        assert mutated(copy.deepcopy(unchanged), CSI_POLICY) == unchanged

    def test_other_volumes_stay_as_they_are(self) -> None:
        others = [
            {"name": "data", "emptyDir": {"medium": "Memory"}},
            csi("other", "csi.example.com", readOnly=False),
            csi("good", readOnly=True),
        ]
        changed = mutated(pod(*others, csi("bad")), CSI_POLICY)
        assert changed == pod(*others, csi("bad", readOnly=True))

    def test_all_volumes_of_the_driver_become_read_only(self) -> None:
        changed = mutated(pod(csi("a"), csi("b", readOnly=False)), CSI_POLICY)
        assert changed == pod(csi("a", readOnly=True), csi("b", readOnly=True))

    @given(
        st.lists(
            st.builds(
                csi,
                st.uuids().map(str),
                st.sampled_from([DRIVER, "csi.example.com"]),
                readOnly=st.booleans(),
            ),
            max_size=5,
        )
    )
    def test_a_changed_pod_needs_no_second_change(self, volumes: list[Manifest]) -> None:
        changed = mutated(pod(*volumes), CSI_POLICY)
        for before, after in zip(volumes, changed["spec"]["volumes"], strict=True):
            ours = before["csi"]["driver"] == DRIVER
            assert after["csi"]["readOnly"] is (ours or before["csi"]["readOnly"])
        assert mutated(changed, CSI_POLICY) == changed

    def test_the_policy_judges_new_pods_and_fails_closed(self) -> None:
        spec = one(read(CSI_POLICY), "MutatingAdmissionPolicy")["spec"]
        (rule,) = spec["matchConstraints"]["resourceRules"]
        assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"])
        assert (spec["failurePolicy"], spec["reinvocationPolicy"]) == ("Fail", "IfNeeded")

    def test_the_beta_is_valid_for_older_versions(self) -> None:
        """As the file's comment says."""
        for manifest in read(CSI_POLICY):
            manifest["apiVersion"] = "admissionregistration.k8s.io/v1beta1"
            for version in ("1.34", "1.35"):
                assert kubernetes_validate.validate(manifest, version, strict=True) == version


def using(asked: str = "limits", kind: str = "containers", **container: Any) -> Manifest:
    """A pod with a container that asks for the device."""
    app = {"name": "app", "image": "app", "resources": {asked: {RESOURCE: 1}}, **container}
    other = {"name": "other", "image": "app"}
    if kind == "containers":
        return {"spec": {"containers": [other, app]}}
    return {"spec": {"containers": [other], kind: [app]}}


def mounts(*paths: str) -> list[Manifest]:
    return [{"name": "data", "mountPath": path} for path in paths]


class TestDevicePlugin:
    @pytest.mark.parametrize(
        "admitted",
        [
            using(),
            using(volumeMounts=mounts("/data", "/etc", "/etc/netutil2", "/data/")),
            using(volumeDevices=[{"name": "disk", "devicePath": "/dev/xvda"}]),
            using(terminationMessagePath="/dev/termination-log", workingDir="/srv"),
            using(workingDir="/"),
            using(workingDir=""),
            {"spec": {"containers": [{"name": "app", "image": "app"}]}},
            {
                "spec": {
                    "containers": [
                        {
                            "name": "app",
                            "resources": {"limits": {"example.com/other": 1}, "requests": {}},
                            "volumeMounts": mounts("/etc/netutil/x", "relative"),
                        }
                    ]
                }
            },
        ],
    )
    def test_another_pod_is_admitted(self, admitted: Manifest) -> None:
        assert refusals(admitted, DEVICE_PLUGIN_POLICY) == []

    @pytest.mark.parametrize("kind", ["containers", "initContainers"])
    @pytest.mark.parametrize("asked", ["limits", "requests"])
    @pytest.mark.parametrize("path", INSIDE)
    def test_nothing_may_be_mounted_there(self, path: str, asked: str, kind: str) -> None:
        for more in (
            {"volumeMounts": mounts("/data", path)},
            {"volumeDevices": [{"name": "disk", "devicePath": path}]},
            {"terminationMessagePath": path},
            {"workingDir": path},
        ):
            assert len(refusals(using(asked, kind, **more), DEVICE_PLUGIN_POLICY)) == 1

    def test_its_paths_are_judged_as_with_the_hostpath(self) -> None:
        (validation,) = policy(DEVICE_PLUGIN_POLICY)["spec"]["validations"]
        expressions = [one["expression"] for one in policy()["spec"]["validations"]]
        assert validation["expression"] in expressions

    def test_the_policy_denies_in_all_namespaces(self) -> None:
        binding = one(read(DEVICE_PLUGIN_POLICY), "ValidatingAdmissionPolicyBinding")["spec"]
        assert binding == {
            "policyName": policy(DEVICE_PLUGIN_POLICY)["metadata"]["name"],
            "validationActions": ["Deny"],
        }


def test_the_resource_is_the_same_in_all_files() -> None:
    objects = with_component("default", "device-plugin")
    assert settings_of(agent_of(objects), NODES[0]).device_plugin == RESOURCE
    (app,) = one(read(DEVICE_PLUGIN_POD), "Pod")["spec"]["containers"]
    assert app["resources"]["limits"][RESOURCE] == 1
    assert DEVICE_PLUGIN_POLICY.read_text("utf-8").count(f"'{RESOURCE}'") == 2


def test_the_kustomization_has_the_validating_policies() -> None:
    made = documents(kustomize(find_kubectl(), HOSTPATH_POLICY.parent))
    files = [*read(HOSTPATH_POLICY), *read(DEVICE_PLUGIN_POLICY)]
    assert sorted(made, key=str) == sorted(files, key=str)


class TestExamples:
    """Pods for a namespace at the level `restricted`: test_pod_security.py."""

    def test_the_csi_volume_needs_no_policy(self) -> None:
        found = one(read(CSI_POD), "Pod")
        assert found["spec"]["volumes"] == [csi(readOnly=True)]
        assert mutated(found, CSI_POLICY) == found
        (app,) = found["spec"]["containers"]
        (mount,) = app["volumeMounts"]
        assert mount == {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True}

    def test_the_device_needs_no_volume(self) -> None:
        found = one(read(DEVICE_PLUGIN_POD), "Pod")
        assert "volumes" not in found["spec"]
        assert "volumeMounts" not in found["spec"]["containers"][0]
        assert refusals(found, DEVICE_PLUGIN_POLICY) == []

    @pytest.mark.parametrize("path", [CSI_POD, DEVICE_PLUGIN_POD], ids=["csi", "device plugin"])
    def test_the_pods_differ_in_the_mount_alone(self, path: Any) -> None:
        (app,) = one(read(path), "Pod")["spec"]["containers"]
        (plain,) = one(read(EXAMPLE_POD), "Pod")["spec"]["containers"]
        for field in ("image", "command", "name"):
            assert app[field] == plain[field]
        assert app["image"] == agent_of(read(DEFAULT))["image"]
