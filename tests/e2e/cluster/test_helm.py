"""docs/install.md, "Helm", after the other ways of installing: the life of a release."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import csi
from tests.e2e.cluster.kubectl import AGENTS, Cluster
from tests.e2e.cluster.objects import container, pod
from tests.e2e.cluster.overlay import FIRST_WITH_SURGE, image_fields
from tests.support.manifests.documents import MANIFESTS
from tests.support.manifests.kubectl import find_helm
from tests.support.repository import ROOT

_FIRST_OF_THE_CHART, _FIRST_WITH_NODES_PODS = 25, 33
_RESOURCE = "netutil.example.com/agent"
_STATUS = "kubectl -n netutil rollout status daemonset/netutil-agent"


@dataclass(frozen=True, slots=True)
class Release:
    """The chart on this cluster: what `helm` is called with."""

    helm: str
    cluster: Cluster
    chart: Path
    values: tuple[str, ...]
    options: tuple[str, ...]

    def run(self, *arguments: str) -> str:
        """Run helm for the namespace of the agents and return what it prints."""
        scratch = self.cluster.directory / "helm"
        homes = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        done = subprocess.run(
            [self.helm, *arguments, f"--namespace={AGENTS}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env={**os.environ, **{home: str(scratch / home) for home in homes}},
        )
        assert done.returncode == 0, f"helm {shlex.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def change(self, verb: str, *values: str) -> str:
        """Install or upgrade the release with further values."""
        settings = (f"--set={value}" for value in (*self.values, *values))
        return self.run(verb, "netutil", str(self.chart), *settings, *self.options)

    def agents(self) -> dict[str, Any]:
        """Return the DaemonSet."""
        return self.cluster.get("daemonset", "netutil-agent", AGENTS)

    def arguments(self) -> list[str]:
        """Return the flags of the agent."""
        (agent,) = self.agents()["spec"]["template"]["spec"]["containers"]
        flags: list[str] = agent["args"]
        return flags


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """The installed chart, which the tests below change in their order."""
    server, kubelet = cluster.server_minor(), cluster.oldest_kubelet_minor()
    chart = cluster.directory / "chart"
    shutil.copytree(MANIFESTS / "helm" / "netutil", chart)
    if server < _FIRST_OF_THE_CHART:
        meta = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
        meta["kubeVersion"] = f">= 1.{server}.0-0"
        (chart / "Chart.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    fields = image_fields(cluster.image)
    values = [f"image.repository={fields['newName']}", "guards=false"]
    named = "digest" if "digest" in fields else "tag"
    values.append(f"image.{named}={fields.get('digest') or fields['newTag']}")
    if kubelet < _FIRST_WITH_NODES_PODS:
        values.append("kubelet.nodesProxy=true")
    if "self-signed-kubelet" in os.environ.get("NETUTIL_COMPONENTS", ""):
        values.append("kubelet.selfSigned=true")
    # Such an API server does not know maxSurge, which would be an unknown field.
    options: tuple[str, ...] = ()
    if server < FIRST_WITH_SURGE:
        values += ["updateStrategy.maxSurge=0", "updateStrategy.maxUnavailable=1"]
        options = ("--server-side=false", "--disable-openapi-validation")
    cluster.documented("kubectl create namespace netutil")
    cluster.documented(
        "kubectl label namespace netutil pod-security.kubernetes.io/enforce=privileged"
    )
    made = Release(find_helm(), cluster, chart, tuple(values), options)
    notes = made.change("install")
    assert "rollout status daemonset/netutil-agent" in notes
    assert "has no label that permits the agent" not in notes
    yield made
    cluster.run("delete", "namespace", AGENTS, "--ignore-not-found", seconds=180.0)


def test_the_documents_have_the_commands() -> None:
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for command in (
        "helm install netutil manifests/helm/netutil --namespace netutil",
        "helm upgrade netutil manifests/helm/netutil --namespace netutil",
        "helm uninstall netutil --namespace netutil",
    ):
        assert command in text


def test_an_installed_chart_answers_pods(release: Release) -> None:
    cluster = release.cluster
    cluster.documented(_STATUS)
    cluster.apply(pod("helm-caller", container("app", cluster.image)))
    cluster.wait("condition=Ready", "pod/helm-caller")
    assert cluster.ask("helm-caller", "whoami", "--timeout", "60")["name"] == "helm-caller"


def test_an_upgrade_changes_the_agents(release: Release) -> None:
    release.change("upgrade", "extraArgs={--pod-refresh=7}", "selinux.relabel=true")
    release.cluster.documented(_STATUS)
    assert "--pod-refresh=7" in release.arguments()
    # Without a surge, the first call may meet the moment between the two agents.
    assert release.cluster.ask("helm-caller", "whoami", "--timeout", "60")["name"] == "helm-caller"


def test_an_upgrade_adds_ways_without_hostpath(release: Release) -> None:
    """The CSI driver, and the device plugin with a scheduler."""
    cluster = release.cluster
    release.change("upgrade", "csi.enabled=true", f"devicePlugin.name={_RESOURCE}")
    cluster.documented(_STATUS)
    csi.rolled_out(cluster)
    app = container("app", cluster.image, volumeMounts=[])
    app["resources"] = {"limits": {_RESOURCE: "1"}}
    cluster.apply(csi.client_pod(cluster, "helm-csi"), pod("helm-device-plugin", app, volumes=[]))
    for name in ("helm-csi", "helm-device-plugin"):
        cluster.wait("condition=Ready", f"pod/{name}", seconds=180)
        assert cluster.ask(name, "whoami", "--timeout", "60")["name"] == name
    # The documented order: without the driver, pods with the volume could not end.
    csi.delete(cluster, "helm-csi", "helm-device-plugin")


def test_a_rollback_restores_the_flags(release: Release) -> None:
    options = [one for one in release.options if one.startswith("--server-side")]
    release.run("rollback", "netutil", "1", *options)
    release.cluster.documented(_STATUS)
    assert "--pod-refresh=7" not in release.arguments()
    kinds = "daemonsets,csidrivers"
    selector = "app.kubernetes.io/component=csi"
    left = release.cluster.run("get", kinds, "--all-namespaces", "-l", selector, "--output=name")
    assert left == ""
    assert release.cluster.ask("helm-caller", "whoami", "--timeout", "60")["name"] == "helm-caller"


def test_an_uninstall_leaves_only_the_namespace(release: Release) -> None:
    cluster = release.cluster
    release.run("uninstall", "netutil")
    kinds = "daemonsets,serviceaccounts,resourcequotas,clusterroles,clusterrolebindings,namespaces"
    kinds += ",csidrivers"
    found = json.loads(
        cluster.run(
            *("get", kinds, "--all-namespaces", "-l", "app.kubernetes.io/name=netutil"),
            *("--output", "json"),
        )
    )
    assert found["items"] == []
    assert cluster.get("namespace", AGENTS, AGENTS)["status"]["phase"] == "Active"
