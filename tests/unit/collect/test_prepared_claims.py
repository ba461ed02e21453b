"""Files of drivers are compared with what the kubelet prepared for a container."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.collect.prepared_claims import prepared_claims, without_stale
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.kubelet.podresources.model import ClaimResource, DynamicResource
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest, ClaimSource

DRIVER, CLAIM, UID = "sriov.example.com", "shared-nic", "0b1c2d3e-0000-4000-8000-000000000001"
METADATA = f"{DRIVER}/metadata={UID}_vf"
OF_FILE = ClaimRequest(
    "nic",
    CLAIM,
    "shop",
    claim_uid=UID,
    request="vf",
    driver=DRIVER,
    source=ClaimSource.NODE,
    devices=(ClaimDevice("node-1", "vf-0"),),
)


def prepared(
    device: str = "vf-0",
    driver: str = DRIVER,
    cdi: tuple[str, ...] = ("k8s.example.com/vf=x", METADATA),
    pool: str = "node-1",
    namespace: str = "shop",
) -> DynamicResource:
    return DynamicResource(CLAIM, namespace, (ClaimResource(cdi, driver, pool, device),))


def compared(dynamic: DynamicResource, request: ClaimRequest = OF_FILE) -> ClaimRequest:
    (found,) = without_stale([request], prepared_claims([dynamic], "shop"))
    return found


def message(found: ClaimRequest) -> str:
    assert found.error is not None and found.devices == ()
    assert found.error.reason is Reason.DEVICE_METADATA_CONTRADICTS
    return found.error.message


def test_a_prepared_device_stays() -> None:
    assert compared(prepared()) is OF_FILE


def test_another_uid_of_the_claim_is_stale() -> None:
    found = message(compared(prepared(cdi=(f"{DRIVER}/metadata=later_vf",))))
    assert f"is of UID {UID}, and the kubelet prepared later" in found


@pytest.mark.parametrize(
    "dynamic",
    [prepared("vf-1"), prepared(driver="gpu.example.com", cdi=()), prepared(pool="node-2")],
    ids=["device", "driver", "pool"],
)
def test_a_device_that_was_not_prepared_is_stale(dynamic: DynamicResource) -> None:
    assert "device node-1/vf-0, which the kubelet did not prepare" in message(compared(dynamic))


@pytest.mark.parametrize(
    "dynamic",
    [
        prepared("vf-1", namespace="other"),
        prepared("vf-1", driver=""),
        prepared(""),
        DynamicResource(CLAIM, "shop", ()),
        DynamicResource("another", "shop", prepared("vf-1").claim_resources),
    ],
    ids=["namespace", "no driver", "no device", "no resources", "claim"],
)
def test_a_silent_kubelet_proves_nothing(dynamic: DynamicResource) -> None:
    assert compared(dynamic) is OF_FILE


@pytest.mark.parametrize(
    "cdi",
    ["other.example.com/metadata=later_vf", f"{DRIVER}/vf=later_vf", f"{DRIVER}/metadata=later"],
)
def test_another_cdi_device_names_no_uid(cdi: str) -> None:
    assert compared(prepared(cdi=(cdi,))) is OF_FILE


def test_a_file_without_devices_or_uid_is_not_stale() -> None:
    early = replace(OF_FILE, devices=(), claim_uid=None)
    assert compared(prepared("vf-1"), early) is early


def test_only_requests_of_files_are_compared() -> None:
    reported = replace(OF_FILE, source=ClaimSource.API_SERVER)
    failed = replace(OF_FILE, error=FailedPrecondition(Reason.DEVICE_METADATA_MALFORMED, "It is."))
    for one in (reported, failed):
        assert compared(prepared("vf-1"), one) is one


@given(st.text(max_size=40))
def test_any_name_of_a_cdi_device_is_taken(name: str) -> None:
    found = compared(prepared(cdi=(name,)))
    assert found is OF_FILE or found.error is not None
