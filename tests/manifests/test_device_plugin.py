"""The component of the device plugin: its flag, its mount, and no other privilege."""

from __future__ import annotations

import pytest

from tests.support.manifests.documents import NODES, agent_of, mounts_of, pod_of, settings_of
from tests.support.manifests.overlays import BASES, objects_of, with_component

RESOURCE = "netutil.example.com/agent"
_BASE = {"default": "self-signed-kubelet", "hardened": "self-signed-kubelet, hardened"}


@pytest.mark.parametrize("base", BASES)
def test_the_agent_gets_the_kubelets_directory(base: str) -> None:
    objects = with_component(base, "device-plugin")
    settings = settings_of(agent_of(objects), NODES[0])
    assert settings.kubelet.device_plugin == RESOURCE
    mount, volume = mounts_of(objects)[settings.kubelet.device_plugin_dir]
    assert not mount.get("readOnly")
    assert volume["hostPath"]["path"] == settings.kubelet.device_plugin_dir


@pytest.mark.parametrize("base", BASES)
def test_the_host_path_is_that_of_the_socket(base: str) -> None:
    """The plugin reports the path of the agent's container, which must be the node's path, too."""
    objects = with_component(base, "device-plugin")
    settings = settings_of(agent_of(objects), NODES[0])
    directory = settings.sockets.pods.rpartition("/")[0]
    _, volume = mounts_of(objects)[directory]
    assert volume["hostPath"]["path"] == directory


@pytest.mark.parametrize("base", BASES)
def test_the_component_adds_no_privilege(base: str) -> None:
    objects, plain = with_component(base, "device-plugin"), objects_of(_BASE[base])
    assert agent_of(objects)["securityContext"] == agent_of(plain)["securityContext"]
    added = {volume["name"] for volume in pod_of(objects)["volumes"]} - {
        volume["name"] for volume in pod_of(plain)["volumes"]
    }
    assert added == {"device-plugins"}
