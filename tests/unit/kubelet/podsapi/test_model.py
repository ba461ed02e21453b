"""A pod in protobuf is the pod that its JSON is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.kubelet.podsapi.model import decode_pod, decode_uid
from netutil.agent.pods.model import PodListMalformed, decode_pod_list
from netutil.podsapi.v1alpha1 import pod_pb2

MOMENT = pod_pb2.ContainerState(
    running=pod_pb2.ContainerStateRunning(startedAt=pod_pb2.Time(seconds=1767225600))
)
WHOLE = pod_pb2.Pod(
    metadata=pod_pb2.ObjectMeta(
        name="web",
        namespace="shop",
        uid="11111111-2222-3333-4444-555555555555",
        labels={"app": "web"},
        annotations={"kubernetes.io/config.source": "api", "text": "a=ü\n"},
    ),
    spec=pod_pb2.PodSpec(
        nodeName="node-1",
        serviceAccountName="shop",
        hostNetwork=True,
        restartPolicy="OnFailure",
        containers=[
            pod_pb2.Container(
                name="app",
                resources=pod_pb2.ResourceRequirements(
                    limits={
                        "hugepages-2Mi": pod_pb2.Quantity(string="64Mi"),
                        "cpu": pod_pb2.Quantity(string="2"),
                    },
                    requests={"hugepages-2Mi": pod_pb2.Quantity(string="64Mi")},
                    claims=[pod_pb2.ResourceClaim(name="nic", request="vf")],
                ),
            ),
            pod_pb2.Container(name="plain"),
        ],
        initContainers=[pod_pb2.Container(name="init", restartPolicy="Always")],
        ephemeralContainers=[
            pod_pb2.EphemeralContainer(ephemeralContainerCommon=pod_pb2.Container(name="debugger"))
        ],
        resourceClaims=[
            pod_pb2.PodResourceClaim(name="nic", resourceClaimTemplateName="vf"),
            pod_pb2.PodResourceClaim(name="gpu", resourceClaimName="shared-gpu"),
        ],
    ),
    status=pod_pb2.PodStatus(
        phase="Running",
        qosClass="Guaranteed",
        podIP="10.0.0.7",
        podIPs=[pod_pb2.PodIP(ip="10.0.0.7"), pod_pb2.PodIP(ip="fd00::7")],
        containerStatuses=[
            pod_pb2.ContainerStatus(
                name="app",
                containerID="containerd://aa",
                state=MOMENT,
                allocatedResourcesStatus=[
                    pod_pb2.ResourceStatus(
                        name="claim:nic/vf",
                        resources=[
                            pod_pb2.ResourceHealth(
                                resourceID="d/p/x", health="Unhealthy", message="no link"
                            ),
                            pod_pb2.ResourceHealth(resourceID="d/p/a", health="Healthy"),
                        ],
                    )
                ],
            ),
            pod_pb2.ContainerStatus(
                name="plain", state=pod_pb2.ContainerState(waiting=pod_pb2.Present())
            ),
        ],
        initContainerStatuses=[
            pod_pb2.ContainerStatus(
                name="init",
                containerID="containerd://bb",
                state=pod_pb2.ContainerState(terminated=pod_pb2.Present()),
            )
        ],
        ephemeralContainerStatuses=[
            pod_pb2.ContainerStatus(name="debug", containerID="containerd://cc")
        ],
        resourceClaimStatuses=[
            pod_pb2.PodResourceClaimStatus(name="nic", resourceClaimName="web-nic-x7k2p"),
            pod_pb2.PodResourceClaimStatus(name="spare"),
        ],
        extendedResourceClaimStatus=pod_pb2.PodExtendedResourceClaimStatus(
            resourceClaimName="web-extended",
            requestMappings=[
                pod_pb2.ContainerExtendedResourceRequest(
                    containerName="plain", resourceName="example.com/nic", requestName="r0"
                )
            ],
        ),
    ),
)
AS_JSON = {
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "11111111-2222-3333-4444-555555555555",
        "labels": {"app": "web"},
        "annotations": {"kubernetes.io/config.source": "api", "text": "a=ü\n"},
    },
    "spec": {
        "nodeName": "node-1",
        "serviceAccountName": "shop",
        "hostNetwork": True,
        "restartPolicy": "OnFailure",
        "containers": [
            {
                "name": "app",
                "resources": {
                    "limits": {"hugepages-2Mi": "64Mi", "cpu": "2"},
                    "requests": {"hugepages-2Mi": "64Mi"},
                    "claims": [{"name": "nic", "request": "vf"}],
                },
            },
            {"name": "plain", "resources": {}},
        ],
        "initContainers": [{"name": "init", "restartPolicy": "Always"}],
        "ephemeralContainers": [{"name": "debugger"}],
        "resourceClaims": [
            {"name": "nic", "resourceClaimTemplateName": "vf"},
            {"name": "gpu", "resourceClaimName": "shared-gpu"},
        ],
    },
    "status": {
        "phase": "Running",
        "qosClass": "Guaranteed",
        "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
        "containerStatuses": [
            {
                "name": "app",
                "containerID": "containerd://aa",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                "allocatedResourcesStatus": [
                    {
                        "name": "claim:nic/vf",
                        "resources": [
                            {"resourceID": "d/p/x", "health": "Unhealthy", "message": "no link"},
                            {"resourceID": "d/p/a", "health": "Healthy"},
                        ],
                    }
                ],
            },
            {"name": "plain", "state": {"waiting": {}}},
        ],
        "initContainerStatuses": [
            {"name": "init", "containerID": "containerd://bb", "state": {"terminated": {}}}
        ],
        "ephemeralContainerStatuses": [{"name": "debug", "containerID": "containerd://cc"}],
        "resourceClaimStatuses": [
            {"name": "nic", "resourceClaimName": "web-nic-x7k2p"},
            {"name": "spare"},
        ],
        "extendedResourceClaimStatus": {
            "resourceClaimName": "web-extended",
            "requestMappings": [
                {"containerName": "plain", "resourceName": "example.com/nic", "requestName": "r0"}
            ],
        },
    },
}


def from_json(pod: object) -> object:
    (found,) = decode_pod_list(json.dumps({"kind": "PodList", "items": [pod]}).encode())
    return found


def test_both_read_the_same_of_a_whole_pod() -> None:
    assert decode_pod(WHOLE.SerializeToString()) == from_json(AS_JSON)


def test_both_read_the_same_of_the_least_pod() -> None:
    least = pod_pb2.Pod(metadata=pod_pb2.ObjectMeta(name="web", uid="u"))
    assert decode_pod(least.SerializeToString()) == from_json(
        {"metadata": {"name": "web", "uid": "u"}}
    )


def test_fields_that_are_not_used_are_skipped() -> None:
    # PodStatus.hostIP is 5, PodSpec.dnsPolicy 6, Pod itself has no 99.
    more = b"\x1a\x05\x2a\x03abc" + b"\x12\x05\x32\x03abc" + b"\x9a\x06\x01x"
    assert decode_pod(WHOLE.SerializeToString() + more) == from_json(AS_JSON)


def test_a_deleted_pod_needs_only_its_uid() -> None:
    known = pod_pb2.Pod(metadata=pod_pb2.ObjectMeta(name="web", namespace="shop", uid="u"))
    assert decode_uid(known.SerializeToString()) == "u"


@pytest.mark.parametrize(
    "metadata",
    [
        pod_pb2.ObjectMeta(name="web"),
        pod_pb2.ObjectMeta(uid="u"),
        pod_pb2.ObjectMeta(),
    ],
    ids=["no UID", "no name", "neither"],
)
def test_a_pod_without_uid_or_name_is_none(metadata: pod_pb2.ObjectMeta) -> None:
    with pytest.raises(PodListMalformed, match="no UID or no name"):
        decode_pod(pod_pb2.Pod(metadata=metadata).SerializeToString())


def test_a_name_that_is_not_utf_8_makes_no_pod() -> None:
    with pytest.raises(PodListMalformed, match=r"\$.metadata.name is text that is not UTF-8"):
        decode_pod(b"\x0a\x09\x0a\x03\xff\xfe\xfd\x2a\x02uu")


def test_other_text_that_is_not_utf_8_is_unknown() -> None:
    body = WHOLE.SerializeToString().replace(b"node-1", b"node-\xff").replace(b"a=\xc3", b"a=\xff")
    pod, whole = decode_pod(body), decode_pod(WHOLE.SerializeToString())
    assert pod.not_understood == ("metadata.annotations[text]", "spec.nodeName")
    assert (pod.spec.node_name, pod.metadata.labels) == ("", {"app": "web"})
    assert pod.status == whole.status


def test_a_map_with_a_key_that_is_not_utf_8_is_unknown() -> None:
    body = WHOLE.SerializeToString().replace(b"\x03app\x12\x03web", b"\x03a\xffp\x12\x03web")
    body = body.replace(b"\x03cpu", b"\x03c\xffu")
    pod = decode_pod(body)
    assert pod.not_understood == ("metadata.labels", "spec.containers[0].resources.limits")
    assert pod.metadata.labels is None


def test_a_time_beyond_all_calendars_is_unknown() -> None:
    state = pod_pb2.ContainerState(
        running=pod_pb2.ContainerStateRunning(startedAt=pod_pb2.Time(seconds=2**62))
    )
    pod = pod_pb2.Pod(
        metadata=pod_pb2.ObjectMeta(name="web", uid="u"),
        status=pod_pb2.PodStatus(
            phase="Running", containerStatuses=[pod_pb2.ContainerStatus(name="app", state=state)]
        ),
    )
    found = decode_pod(pod.SerializeToString())
    assert found.not_understood == ("status.containerStatuses[0].state.running.startedAt",)
    ((_, status),) = found.container_statuses
    assert (status.started_at, status.state_name, found.status.phase) == (
        None,
        "running",
        "Running",
    )


@given(st.binary(max_size=100))
def test_any_bytes_are_a_pod_or_refused(body: bytes) -> None:
    try:
        decode_pod(body)
    except PodListMalformed as error:
        assert str(error).startswith("it is no Pod")


def test_values_derived_of_containers_are_derived_here_too() -> None:
    half = pod_pb2.Quantity(string="500m")
    asking = pod_pb2.ResourceRequirements(requests={"cpu": half}, limits={"cpu": half})
    spec = pod_pb2.PodSpec(containers=[pod_pb2.Container(name="app", resources=asking)])
    metadata = pod_pb2.ObjectMeta(name="web", uid="1")
    one = decode_pod(pod_pb2.Pod(metadata=metadata, spec=spec).SerializeToString())
    assert (one.spec.only_container, one.spec.sharing_cpus) == ("app", ("app",))
    spec.ephemeralContainers.add().ephemeralContainerCommon.name = "debugger"
    two = decode_pod(pod_pb2.Pod(metadata=metadata, spec=spec).SerializeToString())
    assert two.spec.only_container == ""
