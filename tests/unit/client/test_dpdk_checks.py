"""The line is compared with the files that EAL and its drivers read in the container."""

from __future__ import annotations

from pathlib import Path

import pytest
from netutil.client.dpdk.view import HugetlbMount
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.dpdk import (
    ALL_CAPABILITIES,
    GIBIBYTE,
    MEBIBYTE,
    devices_of,
    facts,
    file,
    line_of,
    memif,
    refusal_of,
    reported,
    vhost_user,
    view_of,
    with_interfaces,
)
from tests.unit.client.test_dpdk_given import af_xdp

NET_RAW, IPC_LOCK, SYS_RAWIO, SYS_ADMIN = 13, 14, 17, 21
GROUP = 41  # of net1 in the answers
ADDRESS = "0000:3b:02.1"


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A container of net1 with all that EAL needs: VFIO's files and a hugetlbfs of 1 GiB pages."""
    for name in ("vfio", str(GROUP)):
        file(tmp_path / "dev/vfio" / name)
    for directory in ("dev/hugepages", "var/run", "sys/kernel/mm/hugepages"):
        (tmp_path / directory).mkdir(parents=True)
    return tmp_path


def without(*capabilities: int) -> int:
    return ALL_CAPABILITIES & ~sum(1 << number for number in capabilities)


def driver(container: Path, address: str, name: str) -> None:
    link = container / f"sys/bus/pci/devices/{address}/driver"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"../../../bus/pci/drivers/{name}")


def test_a_complete_container_gets_the_same_line_and_no_warning(container: Path) -> None:
    assert line_of(facts(), view=view_of(container)) == line_of(facts())


def test_a_function_whose_group_is_not_mounted_makes_no_line(container: Path) -> None:
    (container / f"dev/vfio/{GROUP}").unlink()
    error = refusal_of(facts(), view_of(container))
    assert error.reason == "DEVICE_UNUSABLE"
    assert error.message == (
        "interface net1: the container has no /dev/vfio/41, which VFIO needs for PCI device"
        " 0000:3b:02.1"
    )


def test_no_line_is_made_without_vfios_own_file(container: Path) -> None:
    (container / "dev/vfio/vfio").unlink()
    assert "has no /dev/vfio/vfio" in refusal_of(facts(), view_of(container)).message


def test_files_of_vfio_that_may_not_be_opened_make_no_line(container: Path) -> None:
    # A link to nowhere is there and cannot be opened, by root neither.
    (container / f"dev/vfio/{GROUP}").unlink()
    (container / f"dev/vfio/{GROUP}").symlink_to("/nowhere")
    assert "may not read and write /dev/vfio/41" in refusal_of(facts(), view_of(container)).message


def test_vfio_without_an_iommu_needs_capabilities(container: Path) -> None:
    (container / f"dev/vfio/{GROUP}").rename(container / f"dev/vfio/noiommu-{GROUP}")
    assert line_of(facts(), view=view_of(container)).warnings == ()
    first, second = line_of(
        facts(), view=view_of(container, capabilities=without(SYS_RAWIO, SYS_ADMIN))
    ).warnings
    assert "lacks CAP_SYS_RAWIO for VFIO without an IOMMU" in first
    assert "lacks CAP_SYS_ADMIN for physical addresses" in second


def test_files_of_devices_alone_are_a_warning(container: Path) -> None:
    (container / f"dev/vfio/{GROUP}").unlink()
    file(container / "dev/vfio/devices/vfio0")
    file(container / "dev/iommu")
    (warning,) = line_of(facts(), view=view_of(container)).warnings
    assert "only files of devices below /dev/vfio/devices" in warning


@pytest.mark.parametrize(("other", "refused"), [("ice", True), ("vfio-pci", False), ("", False)])
def test_a_group_that_the_kernel_holds_in_part_makes_no_line(
    container: Path, other: str, refused: bool
) -> None:
    for address in (ADDRESS, "0000:3b:02.7"):
        (container / f"sys/kernel/iommu_groups/{GROUP}/devices/{address}").mkdir(parents=True)
    driver(container, ADDRESS, "vfio-pci")
    if other:
        driver(container, "0000:3b:02.7", other)
    if not refused:
        assert devices_of(line_of(facts(), view=view_of(container))) == [ADDRESS]
        return
    error = refusal_of(facts(), view_of(container))
    assert "0000:3b:02.7 of the same IOMMU group 41 is bound to ice" in error.message


def test_uio_needs_its_file_and_physical_addresses(container: Path) -> None:
    response = with_interfaces(answers.sriov(driver="igb_uio"))
    (container / f"sys/bus/pci/devices/{ADDRESS}/uio/uio3").mkdir(parents=True)
    assert "has no /dev/uio3" in refusal_of(response, view_of(container)).message
    file(container / "dev/uio3")
    (warning,) = line_of(
        response, view=view_of(container, capabilities=without(SYS_ADMIN))
    ).warnings
    assert "CAP_SYS_ADMIN for physical addresses, which igb_uio needs" in warning


def with_mlx5() -> api.AllResponse:
    function = answers.sriov(driver="mlx5_core")
    function.pci.vendor_id = "0x15b3"
    function.link.CopyFrom(api.Link(mtu=1500))
    return with_interfaces(function)


@pytest.mark.parametrize("bound", ["vfio-pci", "mlx5_vfio_pci", "uio_pci_generic"])
def test_a_function_of_nvidia_works_with_the_kernels_driver_only(bound: str) -> None:
    response = with_mlx5()
    response.interfaces.interfaces[0].pci.driver = bound
    error = refusal_of(response)
    assert error.reason == "DEVICE_UNUSABLE" and f"bound to {bound}" in error.message
    if bound != "mlx5_vfio_pci":
        assert "it must be bound to mlx5_core, with its RDMA device" in error.message


def test_an_nvidia_function_needs_its_rdma_device(container: Path) -> None:
    device = container / f"sys/bus/pci/devices/{ADDRESS}"
    device.mkdir(parents=True)
    error = refusal_of(with_mlx5(), view_of(container))
    assert "has no RDMA device" in error.message and "mlx5_ib" in error.message
    (device / "infiniband_verbs/uverbs2").mkdir(parents=True)
    error = refusal_of(with_mlx5(), view_of(container))
    assert "the container has no /dev/infiniband/uverbs2" in error.message
    file(container / "dev/infiniband/uverbs2")
    assert line_of(with_mlx5(), view=view_of(container)).warnings == ()
    (warning,) = line_of(
        with_mlx5(), view=view_of(container, capabilities=without(NET_RAW))
    ).warnings
    assert "lacks CAP_NET_RAW for DPDK on mlx5_core" in warning


def test_a_hidden_function_has_no_known_rdma_device(
    container: Path,
) -> None:
    (warning,) = line_of(with_mlx5(), view=view_of(container)).warnings
    assert "does not show whether it has its RDMA device" in warning


def test_an_nvidia_function_without_a_link_is_a_warning() -> None:
    response = with_mlx5()
    response.interfaces.interfaces[0].ClearField("link")
    (warning,) = line_of(response).warnings
    assert "no link of PCI device 0000:3b:02.1 is in the pod's network namespace" in warning


def vdpa() -> api.Interface:
    device = api.VDPADevice(driver="vhost", path="/dev/vhost-vdpa-0")
    return reported("net1", api.DEVICE_TYPE_VDPA, vdpa=device)


@pytest.mark.parametrize(
    ("interface", "missing", "there"),
    [
        (vhost_user("client"), "no /run/vhost/net1, which DPDK opens", "run/vhost/net1"),
        (vhost_user("server"), "no directory /run/vhost for its socket", "run/vhost/"),
        (vdpa(), "no /dev/vhost-vdpa-0, which DPDK opens", "dev/vhost-vdpa-0"),
        (memif(), "no directory /run for its socket", "run/"),
        (memif("master"), "no directory /run for its socket", "run/"),
    ],
)
def test_a_path_that_a_virtual_device_opens_must_be_there(
    container: Path, interface: api.Interface, missing: str, there: str
) -> None:
    error = refusal_of(with_interfaces(interface), view_of(container))
    assert error.reason == "DEVICE_UNUSABLE" and missing in error.message
    if there.endswith("/"):
        (container / there).mkdir(parents=True)
    else:
        file(container / there)
    assert line_of(with_interfaces(interface), view=view_of(container)).warnings == ()


def test_memory_has_no_files_without_a_fitting_hugetlbfs(container: Path) -> None:
    mounts = (HugetlbMount("/dev/hugepages", 2 * MEBIBYTE, None),)
    line = line_of(facts(), view=view_of(container, mounts=mounts))
    assert "--in-memory" in line.words
    (warning,) = line.warnings
    assert warning == (
        "no hugetlbfs for huge pages of 1048576 KiB is mounted in the container: --in-memory does"
        " without, and takes no secondary process"
    )


def test_a_hugetlbfs_that_may_not_be_read_makes_no_line(container: Path) -> None:
    mounts = (HugetlbMount("/dev/absent", GIBIBYTE, None),)
    error = refusal_of(facts(), view_of(container, mounts=mounts))
    assert error.reason == "HUGEPAGES_UNUSABLE" and "may not read /dev/absent" in error.message


def test_a_hugetlbfs_that_holds_less_is_not_used(container: Path) -> None:
    mounts = (HugetlbMount("/dev/hugepages", GIBIBYTE, 512 * MEBIBYTE),)
    line = line_of(facts(), view=view_of(container, mounts=mounts))
    assert "--in-memory" in line.words
    assert "/dev/hugepages holds at most 512 MiB" in line.warnings[0]


def test_eal_takes_the_first_mount_of_a_page_size(container: Path) -> None:
    first = HugetlbMount("/dev/absent", GIBIBYTE, None)
    second = HugetlbMount("/dev/hugepages", GIBIBYTE, None)
    assert refusal_of(facts(), view_of(container, mounts=(first, second)))
    assert (
        "--in-memory" not in line_of(facts(), view=view_of(container, mounts=(second, first))).words
    )


def test_a_container_that_hides_the_sizes_of_pages_has_no_line(container: Path) -> None:
    (container / "sys/kernel/mm/hugepages").rmdir()
    assert "/sys/kernel/mm/hugepages" in refusal_of(facts(), view_of(container)).message


def test_a_read_only_root_leaves_no_place_for_eals_files(container: Path) -> None:
    line = line_of(facts(), view=view_of(container, runtime_directory="/nowhere"))
    assert "--in-memory" not in line.words  # the tree's root may be written
    (container / "var/run").rmdir()
    (container / "var/run").symlink_to("/proc/1/nowhere")
    line = line_of(facts(), view=view_of(container))
    assert "--in-memory" in line.words and "EAL may make no files in" in line.warnings[0]


def test_more_pages_than_open_files_share_files(container: Path) -> None:
    assert (
        "--single-file-segments"
        not in line_of(facts(), view=view_of(container, open_files=1024)).words
    )
    line = line_of(facts(), view=view_of(container, open_files=256))
    (argument,) = (one for one in line.arguments if one.words == ("--single-file-segments",))
    assert argument.source == "1 huge pages would each take one of 256 open files"


def test_memory_that_may_not_be_locked_is_a_warning(container: Path) -> None:
    locked = {"locked_memory_bytes": 8 * MEBIBYTE}
    assert line_of(facts(), view=view_of(container, **locked)).warnings == ()
    (warning,) = line_of(
        facts(), view=view_of(container, **locked, capabilities=without(IPC_LOCK))
    ).warnings
    assert "may lock 8 MiB (ulimit -l)" in warning and "maps 1024 MiB" in warning


def test_a_profile_that_forbids_memory_policy_is_a_warning(container: Path) -> None:
    (warning,) = line_of(facts(), view=view_of(container, may_place_memory=False)).warnings
    assert "get_mempolicy" in warning
    assert line_of(facts(), view=view_of(container, may_place_memory=None)).warnings == ()


def test_a_cpu_quota_below_the_polling_threads_is_a_warning() -> None:
    response = facts()
    response.cpu.quota_cores = 1.5
    response.cpu.quota_level = api.CGROUP_LEVEL_CONTAINER
    (warning,) = line_of(response).warnings
    assert "a CPU quota of 1.5 CPUs stops 2 polling threads" in warning
    response.cpu.quota_cores = 2
    assert line_of(response).warnings == ()


def test_huge_pages_on_another_node_than_the_cpus_are_a_warning() -> None:
    response = facts()
    response.resources.memory[1].numa_nodes[:] = [1]
    assert "huge pages are on NUMA node 1, the CPUs are on 0" in line_of(response).warnings


@pytest.mark.parametrize(
    ("there", "option"),
    [
        ("tmp/afxdp_dp/ens1f0/afxdp.sock", "use_cni=1,dp_path=/tmp/afxdp_dp/ens1f0/afxdp.sock"),
        ("tmp/afxdp_dp/ens1f0/xsks_map", "use_pinned_map=1,dp_path=/tmp/afxdp_dp/ens1f0/xsks_map"),
        ("tmp/afxdp.sock", "use_cni=1,dp_path=/tmp/afxdp.sock"),
    ],
)
def test_the_af_xdp_plugins_endpoint_is_the_one_that_exists(
    container: Path, there: str, option: str
) -> None:
    response = af_xdp("ens1f0")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    file(container / there)
    line = line_of(response, view=view_of(container))
    assert f"--vdev=net_af_xdp0,iface=ens1f0,{option}" in line.words and line.warnings == ()


def test_dpdk_loads_the_program_itself_without_an_endpoint(container: Path) -> None:
    response = af_xdp("ens1f0")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    line = line_of(response, view=view_of(container, capabilities=0))
    assert "--vdev=net_af_xdp0,iface=ens1f0" in line.words
    assert any("CAP_BPF and CAP_NET_ADMIN, which this process lacks" in w for w in line.warnings)
    assert any("lacks CAP_NET_RAW, which AF_XDP" in warning for warning in line.warnings)


def test_queues_and_mtu_that_af_xdp_does_not_take_are_warnings(container: Path) -> None:
    response = af_xdp("ens1f0")
    response.environment.envs["AFXDP_DEVICES"] = "ens1f0"
    response.interfaces.interfaces[-1].link.mtu = 9000
    file(container / "tmp/afxdp_dp/ens1f0/afxdp.sock")
    for queue in ("rx-0", "rx-1", "tx-0"):
        (container / "sys/class/net/ens1f0/queues" / queue).mkdir(parents=True)
    queues, mtu = line_of(response, view=view_of(container)).warnings
    assert "has 2 receive queues" in queues and "MTU of 9000" in mtu
