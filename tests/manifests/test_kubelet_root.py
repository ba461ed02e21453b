"""A kubelet with another root directory: each way that docs/install.md gives reaches all paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.manifests.test_combinations import assert_driver_whole
from tests.support.documentation import text_of
from tests.support.manifests.documents import (
    NODES,
    Manifest,
    agent_of,
    documents,
    mounts_of,
    pod_of,
    settings_of,
)
from tests.support.manifests.overlays import BASES, objects_of, with_component, with_components

DEFAULT_ROOT, OTHER_ROOT = "/var/lib/kubelet", "/var/lib/k0s/kubelet"
_BLOCK = re.compile(r"^  ```\w*\n(.*?)^  ```$", re.MULTILINE | re.DOTALL)
_EXPRESSION = f"sed 's#{DEFAULT_ROOT}#{OTHER_ROOT}#g'"


def section() -> str:
    text = text_of("docs/install.md")
    return text.partition("### The kubelet's root directory")[2].partition("\n## ")[0]


def documented_patch() -> str:
    """The lines of the overlay that the section shows."""
    (found,) = (block for block in _BLOCK.findall(section()) if "patches:" in block)
    return "\n".join(line.removeprefix("  ") for line in found.splitlines()) + "\n"


def moved(objects: list[Manifest]) -> list[Manifest]:
    """The objects after the documented command, which is a replacement of text."""
    return documents(yaml.safe_dump_all(objects).replace(DEFAULT_ROOT, OTHER_ROOT))


def kubelet_paths(objects: list[Manifest]) -> set[str]:
    """The directories and files of the node that are the kubelet's."""
    found = {volume.get("hostPath", {}).get("path", "") for volume in pod_of(objects)["volumes"]}
    return {path for path in found if "kubelet" in path}


def test_the_documented_command_is_the_tested_one() -> None:
    commands = [line for block in _BLOCK.findall(section()) for line in block.splitlines()]
    assert sum(_EXPRESSION in command for command in commands) == 2


@pytest.mark.parametrize(
    "component", ["networkpolicy", "pods-api", "device-plugin", "examples/self-signed-kubelet"]
)
@pytest.mark.parametrize("base", BASES)
def test_a_replacement_reaches_each_path(base: str, component: str) -> None:
    objects = with_component(base, component)
    before, after = kubelet_paths(objects), kubelet_paths(moved(objects))
    assert after == {path.replace(DEFAULT_ROOT, OTHER_ROOT) for path in before}
    assert all(path.startswith(f"{OTHER_ROOT}/") for path in after)


@pytest.mark.parametrize("component", ["networkpolicy", "pods-api", "device-plugin"])
@pytest.mark.parametrize("base", BASES)
def test_the_flags_name_the_directories_that_are_mounted(base: str, component: str) -> None:
    objects = moved(with_component(base, component))
    settings = settings_of(agent_of(objects), NODES[0])
    named = {str(Path(settings.pod_resources).parent), f"{settings.kubelet_root}/plugins"}
    if component == "pods-api":
        named.add(str(Path(settings.pods_api).parent))
    if component == "device-plugin":
        named.add(settings.device_plugin_dir)
    mounts = mounts_of(objects)
    for directory in named:
        assert directory.startswith(f"{OTHER_ROOT}/")
        assert mounts[directory][1]["hostPath"]["path"] == directory


@pytest.mark.parametrize("base", BASES)
def test_a_replacement_reaches_the_driver(base: str) -> None:
    assert_driver_whole(moved(with_component(base, "csi")), OTHER_ROOT)


@pytest.mark.parametrize("base", BASES)
def test_the_documented_patch_moves_the_directory_on_the_node(base: str) -> None:
    objects = with_components(base, patch=documented_patch())
    plain = objects_of(base)
    moved_paths = {f"{OTHER_ROOT}/{name}" for name in ("pod-resources", "plugins")}
    assert moved_paths <= kubelet_paths(objects)
    assert len(kubelet_paths(objects)) == len(kubelet_paths(plain))
    (mount, volume) = mounts_of(objects)[f"{DEFAULT_ROOT}/pod-resources"]
    assert (mount["name"], volume["hostPath"]["type"]) == ("pod-resources", "DirectoryOrCreate")
    assert agent_of(objects)["args"] == agent_of(plain)["args"]


def test_the_section_names_each_volume_below_the_root() -> None:
    named = set()
    for base in BASES:
        for component in ("pods-api", "device-plugin", "examples/self-signed-kubelet"):
            for volume in pod_of(with_component(base, component))["volumes"]:
                if volume.get("hostPath", {}).get("path", "").startswith(DEFAULT_ROOT):
                    named.add(volume["name"])
    assert named <= set(re.findall(r"`([a-z-]+)`", section())) | {"pod-resources", "plugins"}
