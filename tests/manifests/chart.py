"""The Helm chart, rendered by the real helm."""

from __future__ import annotations

from functools import cache

from tests.support.manifests.documents import MANIFESTS, Manifest, agent_of, documents, initial_of
from tests.support.manifests.kubectl import find_helm, helm_template

CHART = MANIFESTS / "helm" / "netutil"
# The chart refuses the placeholder of the manifests.
IMAGE = "image.repository=registry.example.com/netutil"


@cache
def rendered(*values: str, version: str = "1.37.0") -> str:
    """The manifests that the chart makes with these values, for a cluster of that version.

    Raises `CalledProcessError`, with helm's message in `stderr`, for values that the chart refuses.
    """
    settings = (
        f"--set-json={value}" if value.endswith(("]", "}")) else f"--set={value}"
        for value in (IMAGE, *values)
    )
    return helm_template(find_helm(), CHART, f"--kube-version={version}", *settings)


def chart(*values: str) -> list[Manifest]:
    """The objects of `rendered`."""
    return documents(rendered(*values))


def by_name(objects: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """The objects but for the namespace, which is the release's, and the image's name."""
    found = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest
        for manifest in objects
        if manifest["kind"] != "Namespace"
    }
    if any(kind == "DaemonSet" for kind, _ in found):
        for container in (agent_of(objects), *initial_of(objects)):
            container["image"] = "the agent's"
    return found
