"""Cgroups and labs are named as they should be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab.agent import free_address
from tests.support.lab.ownership import is_left, is_stale, new_name
from tests.support.lab.shapes import Driver, QoS, Runtime, container_name, container_path, pod_path

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
UID_IN_SLICES = "2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b"


@pytest.mark.parametrize(
    ("qos", "driver", "path"),
    [
        ("guaranteed", "cgroupfs", f"kubepods/pod{UID}"),
        ("burstable", "cgroupfs", f"kubepods/burstable/pod{UID}"),
        ("besteffort", "cgroupfs", f"kubepods/besteffort/pod{UID}"),
        ("guaranteed", "systemd", f"kubepods.slice/kubepods-pod{UID_IN_SLICES}.slice"),
        (
            "burstable",
            "systemd",
            f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_IN_SLICES}.slice",
        ),
    ],
)
def test_pod_cgroups_are_named_as_the_kubelet_does(qos: QoS, driver: Driver, path: str) -> None:
    assert pod_path(UID, qos, driver) == path


@pytest.mark.parametrize(
    ("runtime", "driver", "name"),
    [
        ("containerd", "cgroupfs", "ID"),
        ("docker", "cgroupfs", "ID"),
        ("cri-o", "cgroupfs", "crio-ID"),
        ("containerd", "systemd", "cri-containerd-ID.scope"),
        ("docker", "systemd", "docker-ID.scope"),
        ("cri-o", "systemd", "crio-ID.scope"),
    ],
)
def test_container_cgroups_are_named_as_the_runtime_does(
    runtime: Runtime, driver: Driver, name: str
) -> None:
    assert container_name("ID", runtime, driver) == name


@pytest.mark.parametrize(
    ("runtime", "driver", "path"),
    [
        (
            "containerd",
            "joined",
            "system.slice/containerd.service/"
            f"kubepods-burstable-pod{UID_IN_SLICES}.slice:cri-containerd:ID",
        ),
        ("cri-o", "no-uid", "system.slice/crio-ID.scope"),
        ("containerd", "cgroupfs", f"kubepods/burstable/pod{UID}/ID"),
    ],
)
def test_containers_of_pods_without_a_cgroup_are_siblings(
    runtime: Runtime, driver: Driver, path: str
) -> None:
    assert container_path(UID, "burstable", driver, runtime, "ID") == path


def test_the_name_of_a_live_owner_is_not_stale() -> None:
    assert not is_stale(new_name())


def test_the_name_of_a_reused_pid_is_stale() -> None:
    prefix, pid, _, chance = new_name().rsplit("-", 3)

    assert is_stale(f"{prefix}-{pid}-1-{chance}")


@pytest.mark.parametrize("name", ["netutil-lab-1-999999999-1-abcdef", "netutil-lab-x", "kubepods"])
def test_unknown_names_are_left_alone(name: str) -> None:
    assert not is_stale(name)


def test_a_dead_labs_directory_is_recognized_until_removed(tmp_path: Path) -> None:
    prefix, pid, _, chance = new_name().rsplit("-", 3)
    left = tmp_path / f"{prefix}-{pid}-1-{chance}"
    left.mkdir()

    assert is_left(left)
    left.rmdir()
    assert not is_left(left)


def test_no_address_is_given_twice_or_by_the_kernel() -> None:
    addresses = [free_address() for _ in range(100)]

    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert len(set(addresses)) == 100
    assert all(int(one.rpartition(":")[2]) < ephemeral for one in addresses)
