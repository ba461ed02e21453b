"""Tables and documents of claims, whatever drivers and workloads call their things."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from netutil.client import Interfaces, Resources
from netutil.client.cli.render.pod import tables_for
from netutil.client.cli.render.tables import Style, render
from netutil.client.documents import to_json, to_yaml
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers.core import HOSTILE

TEXT = st.text(max_size=12)
LISTS = st.lists(TEXT, max_size=3)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
ATTRIBUTES = st.one_of(
    st.builds(api.DeviceAttribute),
    st.builds(api.DeviceAttribute, int_value=INTEGERS),
    st.builds(api.DeviceAttribute, bool_value=st.booleans()),
    st.builds(api.DeviceAttribute, string_value=TEXT),
    st.builds(api.DeviceAttribute, version_value=TEXT),
    st.builds(api.DeviceAttribute, int_values=st.lists(INTEGERS, max_size=3)),
    st.builds(api.DeviceAttribute, bool_values=st.lists(st.booleans(), max_size=3)),
    st.builds(api.DeviceAttribute, string_values=LISTS),
    st.builds(api.DeviceAttribute, version_values=LISTS),
)
CONDITIONS = st.builds(api.DeviceCondition, type=TEXT, status=TEXT, reason=TEXT, message=TEXT)
DEVICES = st.builds(
    api.ClaimDevice,
    pool=TEXT,
    device=TEXT,
    attributes=st.dictionaries(TEXT, ATTRIBUTES, max_size=3),
    network_data=st.none()
    | st.builds(api.ClaimNetworkData, interface_name=TEXT, ips=LISTS, hardware_address=TEXT),
    share_id=TEXT,
    conditions=st.lists(CONDITIONS, max_size=2),
    pci=st.none() | st.builds(api.PCIInfo, address=TEXT, driver=TEXT),
    health=TEXT,
    health_message=TEXT,
)
REQUESTS = st.builds(
    api.ClaimRequest,
    pod_claim=TEXT,
    claim_name=TEXT,
    claim_namespace=TEXT,
    request=TEXT,
    driver=TEXT,
    source=st.integers(0, 9),
    devices=st.lists(DEVICES, max_size=2),
    error=st.none() | st.builds(api.PartError, message=TEXT, reason=TEXT),
    extended_resource=TEXT,
)
WHOLE = api.ClaimDevice(device=HOSTILE, pool=HOSTILE, health=HOSTILE, health_message=HOSTILE)


def printed(answer: Resources | Interfaces) -> None:
    """Each title, row and note is one printable line."""
    tables = tables_for(answer)
    expected = sum(1 + bool(table.headers) + len(table.rows) + len(table.notes) for table in tables)
    lines = render(tables, Style()).split("\n")
    assert len(lines) - 1 == expected + len(tables) - 1  # a blank line between two tables
    assert all(line.isprintable() for line in lines)


@given(st.lists(REQUESTS, max_size=3))
@example([api.ClaimRequest(pod_claim=HOSTILE, driver=HOSTILE, devices=[WHOLE, WHOLE])])
def test_no_claim_can_break_a_table(requests: list[Any]) -> None:
    printed(result(Resources, api.ResourceResponse(claims=requests)))


@given(st.lists(DEVICES, max_size=2), TEXT)
@example([WHOLE], HOSTILE)
def test_no_claimed_interface_can_break_a_table(devices: list[Any], text: str) -> None:
    entries = [
        api.Interface(claim=api.InterfaceClaim(pod_claim=text, driver=text, device=device))
        for device in devices
    ]
    printed(result(Interfaces, api.InterfacesResponse(interfaces=entries)))


@given(st.lists(REQUESTS, max_size=2))
def test_a_document_of_claims_reads_back(requests: list[Any]) -> None:
    answer = result(Resources, api.ResourceResponse(claims=requests))
    shown = json.loads(to_json(answer))
    assert yaml.safe_load(to_yaml(answer)) == shown
    for request, read in zip(requests, shown["claims"], strict=True):
        assert read["request"] == request.request
        for device, one in zip(request.devices, read["devices"] or (), strict=True):
            assert set(one["attributes"]) == set(device.attributes)
