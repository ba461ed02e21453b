"""The error for a caller that the pod list does not know: the source, and each ID once."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from netutil.agent.collect.unknown_caller import unknown_caller
from netutil.agent.kubelet.podsapi.source import PodsApiSource
from netutil.agent.parsers.cgroup import identify
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http.apiserver_login import ServiceAccount
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.apiserver import ApiServerSettings, ApiServerSource
from netutil.agent.pods.sources.base import PodSource, StreamingSource
from netutil.agent.pods.sources.file import FileSource
from netutil.agent.pods.sources.kubelet import KubeletSettings, KubeletSource, Verify

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
STATIC = "d71a3f8c2b9e4a6f8c0d1e2f3a4b5c6d"
CONTAINER = "3" * 64
CONTROLLERS = (
    "blkio",
    "cpu,cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls,net_prio",
    "perf_event",
    "pids",
)

Source = PodSource | StreamingSource[Pod]


def kubelet() -> Source:
    return KubeletSource(KubeletSettings(url="https://192.0.2.1:10250", verify=Verify.FULL))


def api_server() -> Source:
    login = ServiceAccount("https://192.0.2.2:6443", "/ca", "/token")
    return ApiServerSource(ApiServerSettings(login, "node-1"))


def pods_api() -> Source:
    return PodsApiSource("/var/lib/kubelet/pods-api/pods-api.sock")


def file() -> Source:
    return FileSource("/pods.json")


def on_cgroup_v1(path: str) -> str:
    return "".join(
        f"{number}:{controllers}:{path}\n" for number, controllers in enumerate(CONTROLLERS, 1)
    )


PLAIN = on_cgroup_v1(f"/kubepods/burstable/pod{UID}/{CONTAINER}")
STATIC_POD = on_cgroup_v1(f"/kubepods/burstable/pod{STATIC}/{CONTAINER}")


@pytest.mark.parametrize(
    ("source", "name", "read"),
    [
        (kubelet, "The kubelet", "https://192.0.2.1:10250/pods"),
        (api_server, "The API server", "https://192.0.2.2:6443/api/v1/pods"),
        (pods_api, "The kubelet's Pods API", "/var/lib/kubelet/pods-api/pods-api.sock"),
        (file, "The file of --pod-source", "/pods.json"),
    ],
)
def test_the_source_that_was_asked_is_named(
    source: Callable[[], Source], name: str, read: str
) -> None:
    error = unknown_caller(identify(PLAIN), PodDirectory(source(), 10))
    uid = UID.replace("-", "")
    assert error.message == f"{name} does not know the caller's pod or container ({uid})."
    assert error.read == f"the pod list, {read}"
    assert "mirror" not in error.advice


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/burstable/pod{STATIC}/{CONTAINER}",
        f"/kubepods.slice/kubepods-pod{STATIC}.slice/crio-{CONTAINER}.scope",
        f"/system.slice/containerd.service/kubepods-pod{STATIC}.slice:cri-containerd:{CONTAINER}",
    ],
)
def test_an_unknown_static_pod_probably_lacks_its_mirror(path: str) -> None:
    error = unknown_caller(identify(on_cgroup_v1(path)), PodDirectory(api_server(), 10))
    assert "so it is probably one" in error.advice
    assert "mirror pod" in error.advice


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/burstable/pod{UID}/{CONTAINER}",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{CONTAINER}.scope",
    ],
)
def test_an_unknown_pod_is_looked_for_under_the_nodes_name(path: str) -> None:
    error = unknown_caller(identify(on_cgroup_v1(path)), PodDirectory(api_server(), 10))
    assert "mirror" not in error.advice
    assert "--node-name" in error.advice


def test_another_source_knows_static_pods_without_a_mirror() -> None:
    error = unknown_caller(identify(STATIC_POD), PodDirectory(kubelet(), 10))
    assert "mirror" not in error.advice


def test_the_advice_counts_unusable_entries_of_the_list() -> None:
    whole = {"metadata": {"name": "a", "namespace": "b", "uid": "c"}}
    odd = {"metadata": {"name": "a", "namespace": None, "uid": "d"}}
    flaws = Flaws()
    pods = PodDirectory(file(), 10, flaws=flaws)
    for items, said in (
        ([whole, odd], "1 entry of the list could not be used"),
        ([whole, odd, odd], "2 entries of the list could not be used"),
        ([whole], ""),
    ):
        decode_pod_list(json.dumps({"items": items}).encode(), flaws)
        advice = unknown_caller(identify(PLAIN), pods).advice
        assert advice.startswith(said) and "The file may be old" in advice
        assert ("`netutil node doctor`" in advice) == bool(said)


def test_an_id_that_ten_hierarchies_name_appears_once() -> None:
    cgroups = identify(on_cgroup_v1(f"/crio-{CONTAINER}.scope"))
    assert len(cgroups.placements) == len(CONTROLLERS)
    error = unknown_caller(cgroups, PodDirectory(file(), 10))
    assert error.message == (
        f"The file of --pod-source does not know the caller's pod or container ({CONTAINER})."
    )


def test_many_ids_are_counted_and_not_all_listed() -> None:
    ids = [f"{number:064x}" for number in range(5)]
    text = "".join(f"{n}:{c}:/{ids[n % 5]}\n" for n, c in enumerate(CONTROLLERS))
    error = unknown_caller(identify(text), PodDirectory(file(), 10))
    assert f"({', '.join(ids[:3])} and 2 more)" in error.message


def test_each_kind_of_source_has_a_name_of_its_own() -> None:
    names = {source().kind.name for source in (kubelet, api_server, pods_api, file)}
    assert len(names) == 4
