"""The client's view of its own container: parsed as EAL parses it, and read from the kernel."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.client.dpdk.view import Access, HugetlbMount, parse_hugetlb_mounts, read_own_view

from tests.support.lab.observing import needs_lab

MEBIBYTE, GIBIBYTE = 2**20, 2**30
MOUNTS = """\
overlay / overlay rw,relatime,lowerdir=/a:/b 0 0
nodev /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0
nodev /mnt/huge\\0401G hugetlbfs rw,relatime,pagesize=1024M,size=2147483648 0 0
tmpfs /hugetlbfs tmpfs rw 0 0
nodev /default hugetlbfs rw 0 0
"""


def test_mounts_are_read_in_their_order_with_page_size_and_limit() -> None:
    assert parse_hugetlb_mounts(MOUNTS, 2 * MEBIBYTE) == (
        HugetlbMount("/dev/hugepages", 2 * MEBIBYTE, None),
        HugetlbMount("/mnt/huge 1G", GIBIBYTE, 2 * GIBIBYTE),
        HugetlbMount("/default", 2 * MEBIBYTE, None),
    )


@pytest.mark.parametrize(
    "line", ["", "hugetlbfs", "a b hugetlbfs", "n /h hugetlbfs rw,pagesize= 0 0"]
)
def test_a_line_that_the_kernel_does_not_write_is_left_out(line: str) -> None:
    assert parse_hugetlb_mounts(line, 2 * MEBIBYTE) == ()


@given(st.text(alphabet="hugetlbfs pagesize=,0123456789MGK\\/\n", max_size=120))
def test_no_text_of_mounts_raises(text: str) -> None:
    for mount in parse_hugetlb_mounts(text, 2 * MEBIBYTE):
        assert mount.page_size_bytes > 0


@given(
    st.lists(
        st.tuples(st.sampled_from([64, 2048, 1048576]), st.none() | st.integers(1, 2**40)),
        max_size=5,
    )
)
def test_a_list_of_the_kernel_reads_back(mounts: list[tuple[int, int | None]]) -> None:
    lines = [
        f"n /h{number} hugetlbfs rw,pagesize={size}K{f',size={limit}' if limit else ''} 0 0"
        for number, (size, limit) in enumerate(mounts)
    ]
    assert [
        (one.page_size_bytes // 1024, one.limit_bytes)
        for one in parse_hugetlb_mounts("\n".join(lines), 0)
    ] == mounts


def test_a_view_is_this_processes_own() -> None:
    view = read_own_view()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert view.open_files == (None if soft == resource.RLIM_INFINITY else soft)
    assert view.user == os.getuid()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    assert f"CapEff:\t{view.capabilities:016x}" in status
    assert view.may_place_memory in (True, None)


def test_files_are_usable_missing_or_refused(tmp_path: Path) -> None:
    view = read_own_view()
    there, nowhere = tmp_path / "there", tmp_path / "nowhere"
    there.touch()
    nowhere.symlink_to("/nowhere/at/all")
    assert view.access(str(there)) is Access.USABLE
    assert view.access(str(tmp_path / "missing")) is Access.MISSING
    assert view.access(str(nowhere)) is Access.REFUSED
    assert view.may_create(str(tmp_path / "a/b/c"))
    assert not view.may_create(str(there / "a/b"))
    assert view.names(str(tmp_path)) == ("nowhere", "there")
    assert view.names(str(there)) is None
    assert view.target(str(nowhere)) == "all" and view.target(str(there)) == ""


SHOW = """
import dataclasses, json
from netutil.client.dpdk.view import read_own_view
view = read_own_view()
shown = dataclasses.asdict(view)
shown["runtime"] = view.may_create("/var/run/dpdk/x")
print(json.dumps(shown))
"""


@pytest.mark.root
@needs_lab
def test_mounts_limits_and_capabilities_are_the_kernels(tmp_path: Path) -> None:
    """A real hugetlbfs, a read-only /run, a limit and a dropped capability."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts")
    huge = tmp_path / "huge pages"
    huge.mkdir()
    script = (
        'mount -t hugetlbfs -o pagesize=2M,size=64M none "$1" && mount -t tmpfs none /run'
        " && mount -o remount,ro /run && ulimit -l 64 && ulimit -n 300"
        ' && exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "$2" -c "$3"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", huge, sys.executable, SHOW],
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert asdict(HugetlbMount(str(huge), 2 * MEBIBYTE, 64 * MEBIBYTE)) in view["mounts"]
    assert (view["locked_memory_bytes"], view["open_files"]) == (64 * 1024, 300)
    assert view["runtime"] is False
    assert not view["capabilities"] >> 21 & 1
