"""The overlay of a user, as docs/install.md describes it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.support.manifests.documents import MANIFESTS
from tests.support.manifests.overlays import documented_overlay

PLACEHOLDER = "ghcr.io/example/netutil"
MARK = "netutil.test/made-by"
# An API server before 1.22 does not know maxSurge of a DaemonSet and then refuses a
# maxUnavailable of 0, so there an agent ends before its successor starts.
_WITHOUT_SURGE: list[dict[str, Any]] = [
    {"op": "remove", "path": "/spec/updateStrategy/rollingUpdate/maxSurge"},
    {"op": "replace", "path": "/spec/updateStrategy/rollingUpdate/maxUnavailable", "value": 1},
]
FIRST_WITH_SURGE = 22
# Components that need nothing of the cluster and do nothing on its nodes.
_ON_OWN_CLUSTER = ("networkpolicy", "selinux")
# By this mark a later run knows that a killed one left the namespace and no user made it.
_MARKED: list[dict[str, Any]] = [
    {"op": "add", "path": "/metadata/annotations", "value": {MARK: "e2e"}}
]


def write(directory: Path, image: str, server_minor: int) -> None:
    """Write the overlay, with a copy of the manifests in netutil/ beside it."""
    shutil.copytree(MANIFESTS, directory / "netutil/manifests")
    example = directory / "netutil/manifests/examples/pod.yaml"
    text = example.read_text(encoding="utf-8")
    example.write_text(re.sub(rf"{PLACEHOLDER}:\S+", image, text), encoding="utf-8")
    (directory / "kustomization.yaml").write_text(
        yaml.safe_dump(_overlay(image, server_minor)), encoding="utf-8"
    )


def write_variant(
    directory: Path, name: str, image: str, server_minor: int, *components: str
) -> None:
    """Write the same overlay in a directory of its own, with more components of the manifests."""
    overlay = _overlay(image, server_minor, *components)
    for field in ("resources", "components"):
        overlay[field] = [f"../{path}" for path in overlay[field]]
    (directory / name).mkdir()
    (directory / name / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")


def _overlay(image: str, server_minor: int, *more: str) -> dict[str, Any]:
    overlay: dict[str, Any] = yaml.safe_load(documented_overlay())
    components = os.environ.get("NETUTIL_COMPONENTS", "").replace(",", " ").split()
    overlay["components"] = [f"netutil/manifests/examples/{name}" for name in components]
    if os.environ.get("NETUTIL_OWN_CLUSTER"):
        overlay["components"] += [f"netutil/manifests/{name}" for name in _ON_OWN_CLUSTER]
    overlay["components"] += [f"netutil/manifests/{name}" for name in more]
    overlay["images"] = [{"name": PLACEHOLDER, **image_fields(image)}]
    overlay["patches"] = [_patch("Namespace", _MARKED)]
    if server_minor < FIRST_WITH_SURGE:
        overlay["patches"].append(_patch("DaemonSet", _WITHOUT_SURGE))
    return overlay


def _patch(kind: str, operations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"target": {"kind": kind}, "patch": yaml.safe_dump(operations)}


def image_fields(image: str) -> dict[str, str]:
    """The fields of kustomize for NAME, NAME:TAG or NAME@DIGEST; a name may hold a port."""
    name, at, digest = image.partition("@")
    if at:
        return {"newName": name, "digest": digest}
    name, _, tag = image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "")
    return {"newName": name, "newTag": tag or "latest"}
