"""Changes of resource claims in `netutil watch`: each value has a path that says whose it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from netutil.client import All
from netutil.client.cli.render.diff import differences
from netutil.client.models.observation import changed_parts
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers

REQUEST = f"resources.claims[nic/vf/{answers.SRIOV_DRIVER}]"
DEVICE = f"{REQUEST}.devices[node-1/vf-5/5e2f]"


def lines(before: api.AllResponse, now: api.AllResponse) -> list[tuple[str, str, str]]:
    found = differences(result(All, before), result(All, now))
    return [(one.path, one.before, one.now) for one in found]


def advance(request: api.ClaimRequest) -> None:
    request.generation += 1


def recover(request: api.ClaimRequest) -> None:
    request.devices[0].health = "Healthy"


def connect(request: api.ClaimRequest) -> None:
    request.devices[0].conditions[0].status = "True"


def rename(request: api.ClaimRequest) -> None:
    request.devices[0].network_data.interface_name = "net9"


def publish(request: api.ClaimRequest) -> None:
    request.devices[0].attributes["firmware"].version_value = "2.0.0"


def grow(request: api.ClaimRequest) -> None:
    request.devices[0].attributes["ports"].string_values.append("c")


@pytest.mark.parametrize(
    ("change", "path", "before", "now"),
    [
        (advance, f"{REQUEST}.generation", "2", "3"),
        (recover, f"{DEVICE}.health", "Unhealthy", "Healthy"),
        (connect, f"{DEVICE}.conditions[NetworkReady].status", "False", "True"),
        (rename, f"{DEVICE}.network_data.interface_name", "net5", "net9"),
        (publish, f"{DEVICE}.attributes.firmware.value", "1.2.3", "2.0.0"),
        (grow, f"{DEVICE}.attributes.ports.value", "a b", "a b c"),
    ],
)
def test_a_change_of_a_claim_is_a_line(
    change: Callable[[api.ClaimRequest], None], path: str, before: str, now: str
) -> None:
    old, new = answers.everything(), answers.everything()
    change(new.resources.claims[0])
    assert lines(old, new) == [(path, before, now)]
    assert changed_parts(result(All, old), result(All, new)) == ("resources",)


def test_a_new_request_has_lines_of_its_own() -> None:
    old, new = answers.everything(), answers.everything()
    new.resources.claims.insert(0, answers.claim_request(request="first"))
    assert {path.partition(".")[2].partition("]")[0] for path, *_ in lines(old, new)} == {
        f"claims[nic/first/{answers.SRIOV_DRIVER}"
    }


def test_another_message_of_an_error_is_no_change() -> None:
    old, new = answers.everything(), answers.everything()
    for response in (old, new):
        response.resources.claims.append(answers.claim_request(error=answers.part_error("claims")))
        response.resources.claims_error.CopyFrom(answers.part_error("claims"))
    new.resources.claims[1].error.message = "It took 2 s."
    new.resources.claims_error.message = "It took 2 s."
    assert changed_parts(result(All, old), result(All, new)) == ()
    new.resources.claims[1].error.reason = "OTHER"
    assert changed_parts(result(All, old), result(All, new)) == ("resources",)


def test_claims_that_are_not_known_are_a_change() -> None:
    old, new = answers.everything(), answers.everything()
    del new.resources.claims[:]
    new.resources.claims_error.CopyFrom(answers.part_error("claims"))
    assert ("resources.claims_error.error", "-", "POD_RESOURCES_UNAVAILABLE") in lines(old, new)
    assert changed_parts(result(All, old), result(All, new)) == ("resources",)


def test_a_request_of_two_sources_is_two_items() -> None:
    old, new = answers.everything(), answers.everything()
    for response in (old, new):
        response.resources.claims.append(response.resources.claims[0])
    new.resources.claims[0].generation += 1
    (line,) = lines(old, new)
    assert line[0] == f"{REQUEST}.generation"
    new.resources.claims[-1].claim_uid = "another"
    paths = {path for path, _, _ in lines(old, new)}
    assert f"resources.claims[nic/vf/{answers.SRIOV_DRIVER}#2].claim_uid" in paths


def test_the_claim_of_an_interface_is_a_line() -> None:
    old, new = answers.everything(), answers.everything()
    new.interfaces.interfaces[1].claim.CopyFrom(answers.interface_claim(answers.claim_device()))
    assert ("interfaces.interfaces[net1].claim.device.device", "-", "vf-5") in lines(old, new)
