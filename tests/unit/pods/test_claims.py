"""The ResourceClaims that a container refers to: its own, and no other's."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import FailedPrecondition, Reason, ResourceExhausted
from netutil.agent.pods.claims import (
    MAX_REFERENCES,
    ClaimReference,
    claims_of,
    is_reserved_for,
    may_refer_to_claims,
)
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.claims_model import Consumer

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
    "spec": {
        "resourceClaims": [
            {"name": "nic", "resourceClaimTemplateName": "vf"},
            {"name": "gpu", "resourceClaimName": "shared-gpu"},
            {"name": "spare", "resourceClaimTemplateName": "spare"},
        ],
        "containers": [
            {"name": "app", "resources": {"claims": [{"name": "nic", "request": "vf"}]}},
            {"name": "train", "resources": {"claims": [{"name": "gpu"}, {"name": "nic"}]}},
            {"name": "plain"},
        ],
        "initContainers": [{"name": "init", "resources": {"claims": [{"name": "spare"}]}}],
    },
    "status": {
        "resourceClaimStatuses": [{"name": "nic", "resourceClaimName": "web-nic-x7k2p"}],
        "extendedResourceClaimStatus": {
            "resourceClaimName": "web-extended-resources-abcde",
            "requestMappings": [
                {
                    "containerName": "plain",
                    "resourceName": "example.com/nic",
                    "requestName": "container-0-request-0",
                }
            ],
        },
    },
}
MADE = "web-nic-x7k2p"


def pod_of(document: object) -> Pod:
    (found,) = decode_pod_list(json.dumps({"kind": "PodList", "items": [document]}).encode())
    return found


def changed(*path: str | int, value: object) -> Pod:
    document: Any = copy.deepcopy(POD)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return pod_of(document)


GROUP = Consumer("podgroups", "train", "group-uid", "scheduling.k8s.io")


@pytest.mark.parametrize(
    ("consumers", "group", "expected"),
    [
        ([Consumer("pods", "web", "u")], None, True),
        ([Consumer("pods", "other", "v"), Consumer("pods", "web", "u")], None, True),
        ([Consumer("pods", "web", "earlier")], None, False),
        ([], None, False),
        ([GROUP], "train", True),
        ([GROUP], "serve", False),
        ([GROUP], "", False),
        ([GROUP], None, False),
        ([Consumer("podgroups", "train", "g", "other.example.com")], "train", False),
        ([Consumer("pods", "train", "g")], "train", False),
        ([Consumer("podgroups", "", "g", "scheduling.k8s.io")], "", False),
    ],
)
def test_a_claim_is_reserved_by_uid_or_for_the_group(
    consumers: list[Consumer], group: str | None, expected: bool
) -> None:
    pod = changed("spec", "schedulingGroup", value={"podGroupName": group})
    assert is_reserved_for(pod, consumers) is expected
    assert not pod.not_understood


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ("app", (ClaimReference("nic", MADE, "vf", is_from_template=True),)),
        (
            "train",
            (
                ClaimReference("gpu", "shared-gpu", ""),
                ClaimReference("nic", MADE, "", is_from_template=True),
            ),
        ),
        (
            "plain",
            (
                ClaimReference(
                    "", "web-extended-resources-abcde", "container-0-request-0", "example.com/nic"
                ),
            ),
        ),
        ("init", (ClaimReference("spare", "", "", is_from_template=True),)),
        ("", ()),
        ("other", ()),
    ],
)
def test_a_container_knows_its_own_claims(
    container: str, expected: tuple[ClaimReference, ...]
) -> None:
    assert claims_of(pod_of(POD), container) == expected


def test_a_claim_that_was_not_necessary_is_left_out() -> None:
    pod = changed("status", "resourceClaimStatuses", value=[{"name": "nic"}])
    assert claims_of(pod, "app") == ()


def test_a_claim_that_is_named_twice_is_there_once() -> None:
    claims = [{"name": "gpu"}, {"name": "gpu"}]
    pod = changed("spec", "containers", 0, "resources", value={"claims": claims})
    assert claims_of(pod, "app") == (ClaimReference("gpu", "shared-gpu", ""),)


def test_most_pods_refer_to_none() -> None:
    plain = pod_of({"metadata": {"name": "a", "uid": "b"}, "spec": {"containers": [{"name": "c"}]}})
    assert not may_refer_to_claims(plain) and claims_of(plain, "c") == ()
    assert may_refer_to_claims(pod_of(POD))


@pytest.mark.parametrize(
    ("path", "value", "unknown"),
    [
        (("spec", "resourceClaims"), 7, ("app", "train", "init")),
        (("spec", "resourceClaims", 0), "nic", ("app", "train", "init")),
        (("spec", "resourceClaims", 0, "name"), None, ("app", "train", "init")),
        (("status", "resourceClaimStatuses"), {}, ("app", "train", "init")),
        (("status", "resourceClaimStatuses", 0, "resourceClaimName"), 7, ("app", "train", "init")),
        (("status", "extendedResourceClaimStatus"), 7, ("app", "train", "plain", "init")),
        (("spec", "containers", 0, "resources", "claims"), 7, ("app",)),
        (("spec", "containers", 0, "resources", "claims", 0, "request"), 7, ("app",)),
        (("spec", "containers", 0, "resources"), 7, ("app",)),
        (("spec", "containers", 0, "name"), 7, ("app", "train", "plain", "init")),
        (("spec", "containers", 0, "resources", "limits"), 7, ()),
        (("spec", "nodeName"), 7, ()),
        (("spec",), 7, ("app", "train", "plain", "init")),
    ],
    ids=str,
)
def test_claims_are_unknown_where_a_field_is_odd(
    path: tuple[str | int, ...], value: object, unknown: tuple[str, ...]
) -> None:
    pod = changed(*path, value=value)
    for container in ("app", "train", "plain", "init"):
        if container in unknown:
            with pytest.raises(FailedPrecondition) as caught:
                claims_of(pod, container)
            assert caught.value.reason is Reason.RESOURCE_CLAIMS_MALFORMED
        else:
            assert claims_of(pod, container)


def test_a_claim_that_the_pod_lacks_is_an_error() -> None:
    pod = changed("spec", "containers", 0, "resources", value={"claims": [{"name": "no"}]})
    with pytest.raises(FailedPrecondition, match="no 'no'"):
        claims_of(pod, "app")


def test_references_beyond_the_limit_are_refused() -> None:
    claims = [{"name": "gpu", "request": f"r{n}"} for n in range(MAX_REFERENCES + 1)]
    resources = {"claims": claims}
    with pytest.raises(ResourceExhausted) as caught:
        claims_of(changed("spec", "containers", 0, "resources", value=resources), "app")
    assert caught.value.reason is Reason.TOO_MANY_CLAIM_DEVICES
    resources = {"claims": claims[1:]}
    pod = changed("spec", "containers", 0, "resources", value=resources)
    assert len(claims_of(pod, "app")) == MAX_REFERENCES


def test_claims_alone_set_no_amounts() -> None:
    pod = pod_of(POD)
    resources = pod.spec.resources_of("app")
    assert resources is not None
    assert resources.cpu_request is None and resources.requests is None
    assert pod.spec.hugepages == () and pod.spec.sharing_cpus == ()


HEALTH = [
    {"name": "example.com/nic", "resources": [{"resourceID": "b"}, {"resourceID": "a"}]},
    {"name": "claim:nic", "resources": [{"resourceID": "x", "health": "Healthy"}]},
]


@given(st.permutations(HEALTH), st.permutations(HEALTH[0]["resources"]))
def test_health_reads_the_same_in_any_order(
    statuses: list[dict[str, Any]], devices: list[dict[str, Any]]
) -> None:
    def pod(statuses: list[dict[str, Any]]) -> Pod:
        status = {"name": "app", "allocatedResourcesStatus": statuses}
        return changed("status", "containerStatuses", value=[status])

    shuffled = [
        {**one, "resources": devices} if one["name"] == "example.com/nic" else one
        for one in statuses
    ]
    assert pod(shuffled) == pod(HEALTH)
