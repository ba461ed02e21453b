"""Overlays of a user's own, as docs/install.md writes them, made by the real kubectl."""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path

from tests.support.manifests.documents import (
    DEFAULT,
    HARDENED,
    MANIFESTS,
    Manifest,
    documents,
    read,
)
from tests.support.manifests.kubectl import find_kubectl, kustomize
from tests.support.repository import ROOT

_IN_DOCUMENT = re.compile(r"^### An overlay of your own$.*?^```yaml\n(.*?)^```$", re.M | re.S)
_FILES = {"default": DEFAULT, "hardened": HARDENED}
_FOLDERS = {"default": "netutil/manifests", "hardened": "netutil/manifests/hardened"}
_SELF_SIGNED = "netutil/manifests/examples/self-signed-kubelet"
VARIANTS = (*_FILES, "self-signed-kubelet", "self-signed-kubelet, hardened")
BASES = tuple(_FOLDERS)


def objects_of(variant: str) -> list[Manifest]:
    """The objects that a variant makes; the two files need no kubectl."""
    if variant in _FILES:
        return read(_FILES[variant])
    base = "hardened" if variant.endswith("hardened") else "default"
    return with_components(base, "examples/self-signed-kubelet")


def with_component(base: str, component: str) -> list[Manifest]:
    """The objects of a variant with one of the components of manifests/."""
    return with_components(base, component)


def with_components(base: str, *components: str, patch: str = "") -> list[Manifest]:
    """The objects of a variant with components of manifests/, and lines at the overlay's end."""
    return documents(_overlay(_FOLDERS[base], components, patch))


def documented_overlay() -> str:
    """The kustomization that docs/install.md shows."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (found,) = _IN_DOCUMENT.findall(text)
    return str(found)


@cache
def _overlay(folder: str, components: tuple[str, ...], patch: str) -> str:
    kubectl = find_kubectl()
    overlay, replaced = re.subn(r"\bnetutil/manifests(?=\s)", folder, documented_overlay(), count=1)
    assert replaced == 1
    listed = f"components:\n  - {_SELF_SIGNED}\n"
    assert listed in overlay
    lines = [f"  - netutil/manifests/{component}\n" for component in components]
    overlay = overlay.replace(listed, "".join(["components:\n", *lines]) if lines else "")
    overlay += patch
    with tempfile.TemporaryDirectory() as top:
        # A link will do: kustomize asks only that the base is not above the overlay.
        Path(top, "netutil").mkdir()
        Path(top, "netutil", "manifests").symlink_to(MANIFESTS)
        Path(top, "kustomization.yaml").write_text(overlay, encoding="utf-8")
        return kustomize(kubectl, Path(top))
