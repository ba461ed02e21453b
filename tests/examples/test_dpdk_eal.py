"""The lines of `netutil dpdk` against the real EAL: Debian's dpdk-testpmd.

This machine has no huge pages and no function for DPDK. So EAL gets as far as looking for pages,
which is past all of its arguments; and with other memory as far as the virtual devices.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from netutil.client.dpdk.eal import CommandLine
from netutil.v1alpha import netutil_pb2 as api

from tests.support.answers import devices as answers
from tests.support.answers.dpdk import (
    UUID,
    facts,
    file,
    line_of,
    memif,
    vhost_user,
    view_of,
    with_interfaces,
    with_token,
)
from tests.support.lab.observing import needs_lab

PACKAGES = ("dpdk-dev", "librte-net-virtio23", "librte-net-memif23", "librte-net-af-xdp23")
"""Debian's DPDK 22.11."""
PAST_ITS_ARGUMENTS = "Cannot get hugepage information"
REFUSED = ("Usage:", "Invalid 'command line' arguments")
RUN = 'mount -t tmpfs none /run && exec timeout 20 dpdk-testpmd "$@" </dev/null 2>&1'
"""EAL's files end with the mount."""
pytestmark = [pytest.mark.root, needs_lab]


def eal(words: Iterable[str], *, script: str = RUN) -> str:
    if shutil.which("dpdk-testpmd") is None:
        pytest.skip("needs dpdk-testpmd; make examples installs that")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    done = subprocess.run([*command, *words], capture_output=True, check=False, text=True)
    return done.stdout


def here(response: api.AllResponse, cpus: str = "0") -> api.AllResponse:
    """As if the container had CPUs that this machine has."""
    response.cpu.effective_cpus = response.cpu.exclusive_cpus = response.cpu.affinity = cpus
    return response


def without_pages(line: CommandLine) -> list[str]:
    words = [word for word in line.words if not word.startswith("--socket-mem")]
    return [*words, "--no-huge", "-m", "64"]


@pytest.mark.parametrize(
    "response",
    [
        facts(),
        with_interfaces(with_token(1, UUID), with_token(2, UUID)),
        with_interfaces(vhost_user(), memif(), answers.sriov()),
        with_interfaces(memif()),
    ],
    ids=["function", "token", "all", "memif"],
)
def test_eal_takes_each_argument(response: api.AllResponse) -> None:
    output = eal(line_of(here(response)).words)
    assert PAST_ITS_ARGUMENTS in output and not any(one in output for one in REFUSED)


def test_eal_takes_the_line_of_a_container_without_mounts(tmp_path: Path) -> None:
    for name in ("dev/vfio/vfio", "dev/vfio/41"):
        file(tmp_path / name)
    (tmp_path / "sys/kernel/mm/hugepages").mkdir(parents=True)
    line = line_of(here(facts()), view=view_of(tmp_path, mounts=(), open_files=10))
    assert {"--in-memory", "--single-file-segments"} <= set(line.words)
    output = eal(line.words)
    assert PAST_ITS_ARGUMENTS in output and not any(one in output for one in REFUSED)


def test_eal_refuses_a_token_that_is_no_uuid_as_netutil_does() -> None:
    words = [*without_pages(line_of(here(with_interfaces(memif())))), "--vfio-vf-token=secret"]
    assert "invalid parameters for --vfio-vf-token" in eal(words)


def test_eal_starts_on_a_read_only_root_only_in_memory(tmp_path: Path) -> None:
    read_only = RUN.replace("&& exec", "&& mount -o remount,ro /run && exec")
    words = line_of(here(facts())).words
    output = eal(words, script=read_only)
    assert "Cannot create runtime directory" in output and REFUSED[1] in output
    output = eal([*words, "--in-memory"], script=read_only)
    assert PAST_ITS_ARGUMENTS in output and REFUSED[1] not in output


def test_eal_takes_a_hugetlbfs_only_of_the_page_size(tmp_path: Path) -> None:
    """It needs the mount for the pages that it counts, and --in-memory counts them without."""
    huge = tmp_path / "huge"
    huge.mkdir()
    mounted = RUN.replace("&& exec", f"&& mount -t hugetlbfs -o pagesize=2M none {huge} && exec")
    assert "No free 2048 kB hugepages" in eal(line_of(here(facts())).words, script=mounted)
    bare = RUN.replace("&& exec", "&& umount -a -t hugetlbfs && exec")
    without = eal(line_of(here(facts())).words, script=bare)
    assert "No free" not in without and PAST_ITS_ARGUMENTS in without
    assert "No free 2048 kB hugepages" in eal(
        [*line_of(here(facts())).words, "--in-memory"], script=bare
    )


def test_a_driver_takes_the_virtual_device_of_memif(tmp_path: Path) -> None:
    path = f"{tmp_path}/m.sock"
    words = without_pages(line_of(here(with_interfaces(memif("master", path=path)), "0-1")))
    output = eal([*words, "--", "--total-num-mbufs=2048", "--no-mlockall"])
    assert "Port 0: 0A:00:00:00:00:07" in output


def test_a_driver_and_netutil_refuse_a_socket_without_directory() -> None:
    words = without_pages(line_of(here(with_interfaces(memif(path="/nowhere/m.sock")))))
    assert "Invalid socket directory" in eal(words)


def test_a_driver_and_netutil_refuse_a_missing_vhost_socket(tmp_path: Path) -> None:
    interface = vhost_user("client", f"{tmp_path}/v.sock")
    output = eal(without_pages(line_of(here(with_interfaces(interface)))))
    assert "connect error, No such file or directory" in output


def test_a_driver_knows_the_name_of_an_af_xdp_device() -> None:
    """Debian's has no `use_cni` yet; that is of DPDK 23.11."""
    output = eal(["-l", "0", "--no-pci", "--no-huge", "-m", "64", "--vdev=net_af_xdp0,iface=nope"])
    assert "interface: nope" in output


def test_the_tests_of_eal_leave_nothing_behind() -> None:
    eal(line_of(here(facts())).words)
    assert not os.path.exists(f"/run/dpdk/{answers.everything().pod.uid}-app")
