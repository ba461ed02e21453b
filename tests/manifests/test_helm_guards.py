"""The values that the chart refuses for a cluster, and its output after an installation."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.manifests.chart import CHART, IMAGE, rendered
from tests.manifests.release_server import serving_releases
from tests.support.manifests.kubectl import find_helm

ENFORCE = "pod-security.kubernetes.io/enforce"
PRIVILEGED = {ENFORCE: "privileged"}


def refusal(*values: str, version: str) -> str:
    """Return the error of helm when it refuses these values."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        rendered(*values, version=version)
    return str(refused.value.stderr)


def on_cluster(
    *values: str, version: str, labels: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    """`helm install --dry-run=server` on a cluster of that version and with that namespace."""
    with serving_releases(version, labels) as url:
        return subprocess.run(
            [
                *(find_helm(), "install", "netutil", str(CHART), "--namespace=netutil"),
                *("--dry-run=server", "--disable-openapi-validation", f"--kube-apiserver={url}"),
                *(f"--set={value}" for value in (IMAGE, *values)),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.defpath, "HOME": "/nonexistent"},
            timeout=60,
        )


def notes(*values: str, version: str = "1.33.0", labels: dict[str, str] | None = None) -> str:
    """Return the text that helm prints below NOTES."""
    done = on_cluster(*values, version=version, labels=PRIVILEGED if labels is None else labels)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.partition("\nNOTES:\n")[2].split())


CASES = [
    (("hardened=true",), "1.30.14", "1.31.0", "hardened needs Kubernetes 1.31"),
    (("kubelet.nodesProxy=false",), "1.31.9", "1.32.0", "do not know nodes/pods"),
    (("podSource=auto",), "1.31.9", "1.32.0", "do not know nodes/pods"),
    (("resourceClaims=apiserver",), "1.31.9", "1.32.0", "resourceClaims=apiserver needs"),
    (("podSource=pods-api",), "1.34.2", "1.35.0", "pods-api needs Kubernetes 1.35"),
]


@pytest.mark.parametrize(("values", "old", "new", "said"), CASES)
def test_a_version_that_is_too_old_is_refused(
    values: tuple[str, ...], old: str, new: str, said: str
) -> None:
    nodes_proxy = () if "nodes/pods" in said else ("kubelet.nodesProxy=true",)
    for version in (old, f"{old}-gke.100", f"{old}+k3s1"):
        assert said in refusal(*values, *nodes_proxy, version=version)
    for version in (new, f"{new}-gke.100", f"{new}+k3s1"):
        assert "kind: DaemonSet" in rendered(*values, *nodes_proxy, version=version)


@pytest.mark.parametrize("value", ["kubelet.nodesProxy=true", "podSource=apiserver"])
def test_old_kubelets_have_two_ways(value: str) -> None:
    assert "kind: DaemonSet" in rendered(value, version="1.25.0")


@pytest.mark.parametrize("version", ["1.24.17", "1.20.2"])
def test_a_cluster_without_surge_is_refused(version: str) -> None:
    assert "kubeVersion: >= 1.25.0-0" in refusal("guards=false", version=version)


def test_the_placeholder_of_the_image_is_refused() -> None:
    said = refusal("image.repository=ghcr.io/example/netutil", version="1.37.0")
    assert "image.repository is a placeholder" in said


@pytest.mark.parametrize(("surge", "unavailable"), [("0", "0"), ("0%", "0"), ("10%", "1")])
def test_a_strategy_that_the_api_server_refuses_is_refused(surge: str, unavailable: str) -> None:
    values = (f"updateStrategy.maxSurge={surge}", f"updateStrategy.maxUnavailable={unavailable}")
    assert "exactly one of maxSurge and maxUnavailable" in refusal(*values, version="1.37.0")


def test_every_refusal_is_printed_at_once() -> None:
    values = ("hardened=true", "image.repository=ghcr.io/example/netutil")
    said = refusal(*values, version="1.30.0")
    for sentence in ("hardened needs", "nodes/pods", "placeholder", "guards=false"):
        assert sentence in said
    assert "kind: DaemonSet" in rendered(*values, "guards=false", version="1.30.0")


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_rejects_the_agent_is_refused(level: str) -> None:
    done = on_cluster(version="1.33.0", labels={ENFORCE: level})
    assert done.returncode != 0
    assert f"enforces the Pod Security level {level}" in done.stderr
    assert f"kubectl label --overwrite namespace netutil {ENFORCE}=privileged" in done.stderr


@pytest.mark.parametrize("labels", [{}, {"team": "network"}])
def test_the_notes_warn_of_a_namespace_without_label(labels: dict[str, str]) -> None:
    assert "has no label that permits the agent" in notes(labels=labels)


def test_the_notes_warn_of_nothing_on_a_new_cluster() -> None:
    said = notes()
    assert "WARNING" not in said
    assert "rollout status daemonset/netutil-agent" in said


@pytest.mark.parametrize(
    ("value", "version", "sentence"),
    [
        ("podSource=kubelet", "1.32.4", "KubeletFineGrainedAuthz is on"),
        ("podSource=kubelet", "1.33.0", "A kubelet that is older than 1.33"),
        ("kubelet.nodesProxy=true", "1.33.0", "run commands in every container"),
        ("podSource=auto", "1.34.0", "no kubelet of Kubernetes v1.34.0 serves the Pods API"),
        ("kubelet.verify=none", "1.33.0", "sends its token to any server"),
        ("hardened=true", "1.33.0", "no live links"),
        ("csi.enabled=true", "1.33.0", "csi: {driver: csi.netutil, readOnly: true} Before you"),
        ("devicePlugin.name=a.example/b", "1.33.0", "resources: {limits: {a.example/b: 1}}"),
        ("guards=false", "1.33.0", "did not refuse values"),
    ],
)
def test_the_notes_name_the_cost_of_a_value(value: str, version: str, sentence: str) -> None:
    assert sentence in notes(value, version=version)
    assert sentence not in notes("podSource=apiserver", version="1.36.0")
