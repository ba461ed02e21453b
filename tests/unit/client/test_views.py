from __future__ import annotations

from dataclasses import replace

import pytest
from netutil.client import CPU, DeviceInfo, Environment, NetworkStatus
from netutil.client.cli.render.pod import tables_for
from netutil.client.models.core import (
    CgroupLevel,
    CpusetPartition,
    MemifDevice,
    NetworkSource,
    VDPADevice,
    VhostUserDevice,
)
from netutil.client.rpc.convert import result

from tests.support.answers import core as answers

UNLIMITED = CPU("0-3", "0-3", None, None, None, 100000, 1024, None, 1)


def cells(cpu: CPU) -> dict[str, str]:
    return {row[0]: row[1] for row in tables_for(cpu)[0].rows}


def test_a_container_without_a_quota_has_no_limit() -> None:
    rows = cells(UNLIMITED)
    assert (rows["quota"], rows["shares"], rows["weight"]) == ("no limit", "1024", "-")
    assert rows["affinity"] == "-"


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (CgroupLevel.POD, "pod"),
        (CgroupLevel.QOS_CLASS, "QoS class"),
        (CgroupLevel.KUBEPODS, "kubepods"),
        (CgroupLevel.ABOVE, "above kubepods"),
    ],
)
def test_a_limit_of_another_cgroup_names_its_level(level: CgroupLevel, name: str) -> None:
    limited = replace(UNLIMITED, quota_cores=0.5, quota_microseconds=50000, quota_level=level)
    rows = cells(replace(limited, container_period_microseconds=100000))
    assert rows["quota"] == f"0.5 CPUs (50000 us in 100000 us), limit of the {name} cgroup"
    assert rows["container_quota"] == "no limit"
    assert "container_quota" not in cells(limited)


def test_a_limit_of_the_container_itself_names_no_level() -> None:
    rows = cells(replace(UNLIMITED, quota_cores=1.0, quota_level=CgroupLevel.CONTAINER))
    assert rows["quota"].startswith("1 CPU") and "container_quota" not in rows


def test_a_limit_that_is_not_known_is_no_absent_one() -> None:
    rows = cells(replace(UNLIMITED, quota_unknown=True))
    assert rows["quota"] == "not known: the agent sees no cpu cgroup of the container"


def test_a_view_of_shared_cpus_does_not_quote_the_kubelet() -> None:
    rows = cells(replace(UNLIMITED, exclusive_cpus="", exclusive_cpu_ids=()))
    assert rows["exclusive_cpus"] == "none from the kubelet"


NO_PARTITION = CpusetPartition("member", "", None, None, "", None)


@pytest.mark.parametrize(
    ("partition", "cell"),
    [
        (NO_PARTITION, "no cpuset partition"),
        (CpusetPartition("", "", None, None, None, None), "no cpuset partition"),
        (
            replace(NO_PARTITION, requested_exclusive_cpus="2-3"),
            "no cpuset partition, although cpuset.cpus.exclusive asks for 2-3",
        ),
        (
            CpusetPartition("isolated", "", CgroupLevel.CONTAINER, "2-3", "2-3", None),
            "isolated, the container cgroup's, CPUs 2-3",
        ),
        (
            CpusetPartition("root", "", CgroupLevel.POD, None, None, None),
            "root, the pod cgroup's",
        ),
        (
            CpusetPartition("isolated invalid", "why", CgroupLevel.CONTAINER, None, "", None),
            "isolated invalid, the container cgroup's, without effect (why)",
        ),
        (
            CpusetPartition("root invalid", "", CgroupLevel.POD, None, "", None),
            "root invalid, the pod cgroup's, without effect",
        ),
        (
            CpusetPartition("", "", None, None, None, True),
            "the container's cgroup shares its CPUs with no other but those above and below it",
        ),
        (CpusetPartition("", "", None, None, None, False), "no exclusive cpuset"),
    ],
)
def test_a_partition_is_the_kernels_word(partition: CpusetPartition, cell: str) -> None:
    rows = cells(replace(UNLIMITED, cpuset_partition=partition))
    assert rows["cpuset_partition"] == f"kernel: {cell}"


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
    assert tables_for(networks)[0].rows[0][-1] == cell


def test_a_pod_on_the_nodes_network_is_marked() -> None:
    networks = NetworkStatus((), NetworkSource.POD_STATUS, None, host_network=True)
    assert tables_for(networks)[0].notes == (
        *("source: pod-status", "the pod uses the node's own network"),
    )


def test_nothing_inexact_needs_no_note() -> None:
    assert tables_for(Environment({"A": "b"}, 0, 0))[0].notes == ()


def test_only_answers_have_a_table() -> None:
    with pytest.raises(TypeError):
        tables_for("text")
