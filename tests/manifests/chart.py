"""The Helm chart, rendered by the real helm."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml

from tests.support.manifests.documents import MANIFESTS, Manifest, documents, pod_of
from tests.support.manifests.kubectl import find_helm, helm_template

CHART = MANIFESTS / "helm" / "netutil"
# The chart refuses the placeholder of the manifests.
IMAGE = "image.repository=registry.example.com/netutil"
_SOURCE = re.compile(r"# Source: sets/charts/(\w+)/templates/")


@cache
def rendered(*values: str, version: str = "1.37.0") -> str:
    """The manifests that the chart makes with these values, for a cluster of that version.

    Raises `CalledProcessError`, with helm's message in `stderr`, for values that the chart refuses.
    """
    return helm_template(
        find_helm(), CHART, f"--kube-version={version}", *_options((IMAGE, *values))
    )


def chart(*values: str) -> list[Manifest]:
    """The objects of `rendered`."""
    return documents(rendered(*values))


def charts(sets: Sequence[tuple[str, ...]]) -> list[list[Manifest]]:
    """The objects of `chart` for each of these sets of values, by one run of helm.

    Each set is a subchart of its own name: helm renders it with its own values, and says of each
    object from which subchart it is.
    """
    names = [f"s{number}" for number in range(len(sets))]
    options: list[str] = []
    for name, values in zip(names, sets, strict=True):
        options += _options((IMAGE, *values), f"{name}.")
    meta = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    child = {"name": meta["name"], "version": meta["version"]}
    parent = {
        "apiVersion": "v2",
        "name": "sets",
        "version": "0.1.0",
        "dependencies": [{**child, "alias": name} for name in names],
    }
    with tempfile.TemporaryDirectory() as top:
        Path(top, "charts").mkdir()
        Path(top, "charts", meta["name"]).symlink_to(CHART)
        Path(top, "Chart.yaml").write_text(yaml.safe_dump(parent), encoding="utf-8")
        text = helm_template(find_helm(), Path(top), "--kube-version=1.37.0", *options)
    found: dict[str, list[Manifest]] = {name: [] for name in names}
    for piece in re.split(r"^---\n", text, flags=re.MULTILINE)[1:]:
        source = _SOURCE.match(piece)
        assert source, piece
        found[source[1]] += documents(piece)
    return list(found.values())


def _options(values: Sequence[str], prefix: str = "") -> list[str]:
    return [
        f"--set-json={prefix}{value}" if value.endswith(("]", "}")) else f"--set={prefix}{value}"
        for value in values
    ]


def by_name(objects: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """The objects but for the namespace, which is the release's, and the image's name."""
    found = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in objects
        if manifest["kind"] != "Namespace"
    }
    for kind, name in found:
        if kind == "DaemonSet":
            pod = pod_of(objects, name)
            for container in (*pod["containers"], *pod.get("initContainers", [])):
                container["image"] = "the agent's"
    return found
