"""The manifests as parsed documents, and the agent's settings that they lead to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from netutil.agent.config import Config, parse

from tests.support.repository import ROOT

MANIFESTS = ROOT / "manifests"
DEFAULT = MANIFESTS / "daemonset.yaml"
HARDENED = MANIFESTS / "hardened" / "daemonset.yaml"
EXAMPLE_POD = MANIFESTS / "examples" / "pod.yaml"
CSI_POD = MANIFESTS / "examples" / "pod-csi.yaml"
DEVICE_PLUGIN_POD = MANIFESTS / "examples" / "pod-device-plugin.yaml"
NODES_PROXY = MANIFESTS / "nodes-proxy.yaml"
HOSTPATH_POLICY = MANIFESTS / "policies" / "hostpath.yaml"
DEVICE_PLUGIN_POLICY = MANIFESTS / "policies" / "device-plugin.yaml"
CSI_POLICY = MANIFESTS / "policies" / "csi-read-only.yaml"
APISERVER_RBAC = MANIFESTS / "apiserver" / "rbac.yaml"
NETWORK_POLICY = MANIFESTS / "networkpolicy" / "networkpolicy.yaml"
SCC = MANIFESTS / "openshift" / "scc.yaml"
HARDENED_SCC = MANIFESTS / "hardened" / "openshift" / "scc.yaml"
CSI_SCC = MANIFESTS / "csi" / "openshift" / "scc.yaml"

# What the kubelet puts into the environment; the two families of addresses.
NODES = (
    {"status.hostIP": "192.0.2.10", "status.podIP": "10.1.0.7", "spec.nodeName": "node-a"},
    {"status.hostIP": "2001:db8::10", "status.podIP": "fd00::7", "spec.nodeName": "node-a"},
)

Manifest = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Refuses a key that a mapping has twice, which YAML forbids and PyYAML accepts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            problem = f"keys that occur twice: {twice}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def documents(text: str) -> list[Manifest]:
    """The documents of a text.

    Raises `yaml.YAMLError` for a key that a mapping has twice.
    """
    return [document for document in yaml.load_all(text, _Loader) if document]


def read(path: Path) -> list[Manifest]:
    """The documents of a file, parsed again: each caller may change them."""
    return documents(_text(path))


@cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def one(objects: list[Manifest], kind: str) -> Manifest:
    (found,) = (manifest for manifest in objects if manifest["kind"] == kind)
    return found


def pod_of(objects: list[Manifest], daemonset: str = "netutil-agent") -> Manifest:
    """The pod of a DaemonSet, the agent's unless named."""
    named = [found for found in objects if found["metadata"]["name"] == daemonset]
    spec: Manifest = one(named, "DaemonSet")["spec"]["template"]["spec"]
    return spec


def agent_of(objects: list[Manifest]) -> Manifest:
    (container,) = pod_of(objects)["containers"]
    assert isinstance(container, dict)
    return container


def initial_of(objects: list[Manifest]) -> list[Manifest]:
    """The containers that end before the agent starts."""
    found: list[Manifest] = pod_of(objects).get("initContainers", [])
    return found


def environment_of(container: Manifest, node: dict[str, str]) -> dict[str, str]:
    """The variables that the kubelet of that node would set."""
    return {
        variable["name"]: variable.get("value")
        or node[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in container["env"]
    }


def arguments_of(container: Manifest, node: dict[str, str]) -> list[str]:
    """The arguments as the kubelet of that node would expand them."""
    environment = environment_of(container, node)
    return [
        re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], argument)
        for argument in container["args"]
    ]


def settings_of(
    container: Manifest, node: dict[str, str], services: Mapping[str, str] | None = None
) -> Config:
    """The settings of an agent that is started by this manifest on that node."""
    environment = {**(services or {}), **environment_of(container, node)}
    return parse(arguments_of(container, node), environment)


def mounts_of(objects: list[Manifest]) -> dict[str, tuple[Manifest, Manifest]]:
    """By path in the container: the mount and its volume."""
    volumes = {volume["name"]: volume for volume in pod_of(objects)["volumes"]}
    mounts = agent_of(objects)["volumeMounts"]
    before = [mount for one in initial_of(objects) for mount in one["volumeMounts"]]
    assert {mount["name"] for mount in (*mounts, *before)} == set(volumes)
    return {mount["mountPath"]: (mount, volumes[mount["name"]]) for mount in mounts}


def assert_bound(objects: list[Manifest], account: Manifest) -> None:
    """The objects' one binding gives their one role to that account and no other."""
    binding = one(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == one(objects, "ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [
        {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
    ]
