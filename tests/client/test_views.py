from __future__ import annotations

from dataclasses import replace

import pytest
from netutil.client import CPU, DeviceInfo, Environment, NetworkStatus
from netutil.client.conversion import result
from netutil.client.results import MemifDevice, NetworkSource, VDPADevice, VhostUserDevice
from netutil.client.views import tables_of

from tests.client import answers

UNLIMITED = CPU("0-3", "0-3", None, None, None, 100000, 1024, None, 1)


def cells(cpu: CPU) -> dict[str, str]:
    return {row[0]: row[1] for row in tables_of(cpu)[0].rows}


def test_a_container_without_a_quota_has_no_limit() -> None:
    rows = cells(UNLIMITED)
    assert (rows["quota"], rows["shares"], rows["weight"]) == ("no limit", "1024", "-")
    assert rows["affinity"] == "-"


def test_a_quota_without_its_parts_is_shown_alone() -> None:
    rows = cells(replace(UNLIMITED, quota_cores=2.0))
    assert rows["quota"] == "2 CPUs"


@pytest.mark.parametrize(
    ("device", "cell"),
    [
        (DeviceInfo("new", "1.1.0", None, None, None, None, {}), "new"),
        (DeviceInfo("", "", None, None, None, None, {}), "-"),
        (
            DeviceInfo(
                *("vdpa", "1.1.0", None),
                VDPADevice("mgmt0", "vhost", "", "", "", "", {}),
                *(None, None, {}),
            ),
            "vdpa vhost mgmt0",
        ),
        (
            DeviceInfo(
                *("vhost-user", "1.1.0", None, None),
                VhostUserDevice("server", "/run/v.sock", {}),
                *(None, {}),
            ),
            "vhost-user server /run/v.sock",
        ),
        (
            DeviceInfo(
                *("memif", "1.1.0", None, None, None),
                MemifDevice("master", "/run/m.sock", "ip", {}),
                {},
            ),
            "memif master /run/m.sock",
        ),
    ],
)
def test_each_kind_of_device_is_named_by_where_it_is(device: DeviceInfo, cell: str) -> None:
    status = result(NetworkStatus, answers.network_status())
    networks = replace(status, status=(replace(status.status[0], device_info=device),))
    assert tables_of(networks)[0].rows[0][-1] == cell


def test_a_pod_on_the_nodes_network_is_said_to_be() -> None:
    networks = NetworkStatus((), NetworkSource.POD_STATUS, None, host_network=True)
    assert tables_of(networks)[0].notes == (
        *("source: pod-status", "the pod uses the node's own network"),
    )


def test_nothing_inexact_needs_no_note() -> None:
    assert tables_of(Environment({"A": "b"}, 0, 0))[0].notes == ()


def test_only_answers_have_a_table() -> None:
    with pytest.raises(TypeError):
        tables_of("text")
