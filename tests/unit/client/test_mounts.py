"""The type of the file system that a path is on, as this kernel shows it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.client.mounts import filesystem_type, read_filesystem_type

# As a container in a Kata VM and one in gVisor have it, cut to what counts.
KATA = """\
612 480 0:35 /3f2a/rootfs / rw,relatime master:1 - virtiofs kataShared rw
618 612 0:35 /3f2a-1c7be0e5d7a0d3c4-netutil /etc/netutil ro,relatime master:1 - virtiofs none rw
619 612 0:21 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
"""
GVISOR = """\
1 0 0:20 / / rw - 9p none rw,trans=fd,rfdno=4,wfdno=4,aname=/,cache=remote_revalidating
3 1 0:22 / /proc rw - proc none rw
7 1 0:26 / /etc/netutil ro - 9p none ro,trans=fd,rfdno=8,wfdno=8
"""
RUNC = """\
2200 1830 0:331 / / rw,relatime - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c
2214 2200 0:25 /netutil /etc/netutil ro,nosuid,nodev - tmpfs tmpfs rw,size=808948k,mode=755
"""


@pytest.mark.parametrize(
    ("text", "expected"), [(KATA, "virtiofs"), (GVISOR, "9p"), (RUNC, "tmpfs")]
)
def test_the_mount_of_the_sockets_directory_counts(text: str, expected: str) -> None:
    assert filesystem_type("/etc/netutil/net.sock", text) == expected


def test_the_last_of_several_mounts_is_on_top() -> None:
    below = RUNC + "2215 2214 0:40 / /etc/netutil rw - virtiofs none rw\n"
    assert filesystem_type("/etc/netutil/net.sock", below) == "virtiofs"


def test_a_name_that_only_begins_alike_is_elsewhere() -> None:
    assert filesystem_type("/etc/netutil-other/net.sock", KATA + RUNC) == "overlay"


def test_a_blank_in_a_mount_point_is_octal() -> None:
    text = "1 0 0:20 / /a\\040b rw - virtiofs none rw\n"
    assert filesystem_type("/a b/net.sock", text) == "virtiofs"


@pytest.mark.parametrize("path", ["/proc/self/status", "/sys/kernel", "/dev/shm"])
def test_it_is_what_findmnt_says(path: str) -> None:
    done = subprocess.run(
        ["findmnt", "--noheadings", "--output=FSTYPE", f"--target={path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert read_filesystem_type(path) == done.stdout.split()[-1]


def test_a_path_that_is_not_there_is_on_the_mount_above(tmp_path: Path) -> None:
    assert read_filesystem_type(f"{tmp_path}/none/net.sock") == read_filesystem_type(str(tmp_path))


@given(st.text(), st.text())
def test_any_text_gives_a_type_or_none(path: str, text: str) -> None:
    assert filesystem_type(path, text) in {"", *text.split(" ")} or " - " in text
