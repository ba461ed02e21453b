from __future__ import annotations

import gc
import json
import logging
import sys
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.pods.model import Pod, PodListMalformed, convert_pod_list, decode_pod_list

HASH = "0123456789abcdef0123456789abcdef"
SAMPLE: dict[str, Any] = {
    "kind": "PodList",
    "apiVersion": "v1",
    "metadata": {},
    "items": [
        {
            "metadata": {
                "name": "web-0",
                "namespace": "shop",
                "uid": "3c1b0c7e-7f1c-4f0e-9d55-0a4d1b1a6c11",
                "creationTimestamp": "2026-03-01T10:00:00Z",
                "labels": {"app": "web"},
                "annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"},
            },
            "spec": {
                "nodeName": "node-1",
                "serviceAccountName": "web",
                "containers": [{"name": "app", "resources": {"limits": {"cpu": "2"}}}],
                "initContainers": [{"name": "setup"}],
                "ephemeralContainers": [{"name": "debug"}],
            },
            "status": {
                "phase": "Running",
                "qosClass": "Guaranteed",
                "podIP": "10.0.0.7",
                "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
                "containerStatuses": [
                    {
                        "name": "app",
                        "containerID": "containerd://" + "a" * 64,
                        "image": "web",
                        "imageID": "web@sha256:0",
                        "ready": True,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": "2026-03-01T10:00:09Z"}},
                    }
                ],
                "initContainerStatuses": [
                    {
                        "name": "setup",
                        "containerID": "cri-o://" + "b" * 64,
                        "image": "web",
                        "imageID": "",
                        "ready": True,
                        "restartCount": 0,
                        "state": {"terminated": {"exitCode": 0}},
                    }
                ],
                "ephemeralContainerStatuses": [
                    {
                        "name": "debug",
                        "image": "busybox",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 0,
                        "state": {"waiting": {"reason": "ContainerCreating"}},
                    }
                ],
            },
        },
        {
            "metadata": {
                "name": "etcd-node-1",
                "namespace": "kube-system",
                "uid": "7f9a5a0e-9c5e-4f0f-8f5f-c3b0d8a1e200",
                "annotations": {
                    "kubernetes.io/config.hash": HASH,
                    "kubernetes.io/config.mirror": HASH,
                    "kubernetes.io/config.source": "file",
                },
            },
            "spec": {"hostNetwork": True, "nodeName": "node-1", "containers": [{"name": "etcd"}]},
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        },
    ],
}


def decoded(*items: object) -> tuple[Pod, ...]:
    return decode_pod_list(json.dumps({"kind": "PodList", "items": items}).encode())


def test_our_model_reads_what_the_kubernetes_client_reads() -> None:
    from kubernetes import client

    text = json.dumps(SAMPLE)
    theirs = client.ApiClient().deserialize(text, "V1PodList", "application/json").items
    ours = decode_pod_list(json.dumps(SAMPLE).encode())
    assert len(ours) == len(theirs)
    for pod, other in zip(ours, theirs, strict=True):
        assert (pod.metadata.name, pod.metadata.namespace, pod.metadata.uid) == (
            other.metadata.name,
            other.metadata.namespace,
            other.metadata.uid,
        )
        assert pod.metadata.labels == other.metadata.labels
        assert pod.metadata.annotations == other.metadata.annotations
        assert pod.spec.node_name == other.spec.node_name
        assert pod.spec.service_account_name == (other.spec.service_account_name or "")
        assert pod.spec.host_network is bool(other.spec.host_network)
        assert (pod.status.phase, pod.status.qos_class) == (
            other.status.phase,
            other.status.qos_class,
        )
        assert pod.status.pod_ip == (other.status.pod_ip or "")
        assert pod.ips == tuple(one.ip for one in other.status.pod_ips or ())
        theirs_by_kind = {
            "init": other.status.init_container_statuses,
            "container": other.status.container_statuses,
            "ephemeral": other.status.ephemeral_container_statuses,
        }
        assert [
            (kind, s.name, s.container_id, s.state_name) for kind, s in pod.container_statuses
        ] == [
            (
                kind,
                status.name,
                status.container_id or "",
                next(n for n in ("running", "waiting", "terminated") if getattr(status.state, n)),
            )
            for kind, statuses in theirs_by_kind.items()
            for status in statuses or ()
        ]


def test_yaml_and_json_give_the_same_pods() -> None:
    assert convert_pod_list(SAMPLE) == decode_pod_list(json.dumps(SAMPLE).encode())


def test_an_id_has_no_runtime_prefix() -> None:
    ids = [
        status.id
        for _, status in decode_pod_list(json.dumps(SAMPLE).encode())[0].container_statuses
    ]
    assert ids == ["b" * 64, "a" * 64, ""]


def test_null_is_not_set() -> None:
    (pod,) = decoded(
        {
            "metadata": {"name": "a", "uid": "u", "labels": None, "annotations": None},
            "spec": {"containers": None},
            "status": {
                "podIPs": None,
                "containerStatuses": None,
                "initContainerStatuses": None,
                "ephemeralContainerStatuses": None,
            },
        }
    )
    assert (pod.container_statuses, pod.ips, pod.cgroup_uid) == ((), (), "u")
    assert decode_pod_list(b'{"kind":"PodList","items":null}') == ()
    assert convert_pod_list({"kind": "PodList", "items": None}) == ()


@pytest.mark.parametrize(
    ("annotations", "uid"),
    [
        ({"kubernetes.io/config.hash": HASH, "kubernetes.io/config.source": "file"}, HASH),
        ({"kubernetes.io/config.hash": HASH, "kubernetes.io/config.source": "http"}, HASH),
        ({"kubernetes.io/config.hash": HASH}, HASH),
        ({"kubernetes.io/config.hash": HASH, "kubernetes.io/config.source": "api"}, "own"),
        ({}, "own"),
    ],
    ids=["static", "static from http", "hash only", "a tenant's own annotation", "none"],
)
def test_a_static_pod_is_known_to_its_cgroups_by_its_hash(
    annotations: dict[str, str], uid: str
) -> None:
    (pod,) = decoded({"metadata": {"name": "a", "uid": "own", "annotations": annotations}})
    assert pod.cgroup_uid == uid


def test_one_bad_pod_does_not_take_the_others_away(caplog: pytest.LogCaptureFixture) -> None:
    good = [{"metadata": {"name": f"pod-{n}", "uid": f"uid-{n}"}} for n in range(249)]
    bad: dict[str, Any] = {"metadata": {"name": "odd", "namespace": "shop", "uid": 7}}
    with caplog.at_level(logging.WARNING):
        pods = decoded(*good[:100], bad, *good[100:])
    assert len(pods) == 249
    (line,) = caplog.messages
    assert line.startswith("pod list: 1 of 250 left out; the first, item 100 ('shop/odd'): ")
    assert "$.metadata.uid" in line


@pytest.mark.parametrize(
    "item", [{}, [], 1, None, {"metadata": {"name": "a", "uid": ""}}, {"kind": "Service"}]
)
def test_an_invalid_pod_is_left_out(item: object) -> None:
    good = {"metadata": {"name": "a", "uid": "u"}}
    other = {"kind": "Service", "metadata": {"name": "b", "uid": "v"}}
    assert [pod.metadata.name for pod in decoded(item, good, other)] == ["a"]
    assert len(convert_pod_list({"kind": "List", "items": [item, good, other]})) == 1


def test_a_list_of_which_nothing_can_be_read_is_no_empty_list() -> None:
    with pytest.raises(PodListMalformed, match=r"none of its pods .* item 0 .*metadata"):
        decoded({"metadata": {"name": "a"}}, {})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "of 0 bytes"),
        (b'{"kind":"PodList","items":[{"metadata":{"na', "truncated .of 43 bytes"),
        (b'{"kind":"PodList","items":[1x]}', "byte 28"),
        (b"[]", "got `array`"),
        (b'{"kind":"PodList"}', "no `items`"),
        (b'{"kind":"PodList","items":{}}', r"\$\.items"),
        (b'{"kind":"Status","items":[]}', "'Status', not a PodList"),
        (b'{"items":[' + b"[" * 100_000, "recursion"),
        (b'{"kind":"\xff","items":[]}', "utf-8"),
    ],
)
def test_a_broken_list_says_where_it_breaks(body: bytes, where: str) -> None:
    with pytest.raises(PodListMalformed, match=where):
        decode_pod_list(body)


def test_no_pod_keeps_the_body_of_the_answer() -> None:
    class Body(bytearray):
        __slots__ = ("__weakref__",)

    body = Body(json.dumps(SAMPLE).encode())
    pods = decode_pod_list(body)
    reference = weakref.ref(body)
    references = sys.getrefcount(body)
    del body
    gc.collect()
    assert pods and reference() is None, references


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "items", "metadata", "name", "uid", "status", "containerStatuses", "state"]
            )
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(json_values)
def test_any_json_is_pods_or_the_typed_error(value: object) -> None:
    for document in (value, {"kind": "PodList", "items": value}, {"items": [value]}):
        for read in (lambda d: decode_pod_list(json.dumps(d).encode()), convert_pod_list):
            try:
                pods = read(document)
            except PodListMalformed as error:
                assert str(error).startswith("it is ")
            else:
                assert all(isinstance(pod, Pod) and pod.cgroup_uid for pod in pods)


@given(st.binary(max_size=200))
def test_any_bytes_are_pods_or_the_typed_error(body: bytes) -> None:
    for read in (body, b'{"kind":"PodList","items":[' + body):
        try:
            decode_pod_list(read)
        except PodListMalformed:
            pass


@given(st.integers(0, len(json.dumps(SAMPLE)) - 1))
def test_a_half_written_list_is_never_a_shorter_list(length: int) -> None:
    with pytest.raises(PodListMalformed):
        decode_pod_list(json.dumps(SAMPLE).encode()[:length])
