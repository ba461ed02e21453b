"""From lines of /proc/self/mountinfo to the mounts at a path."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.csi.errors import VolumeFailed
from netutil.agent.csi.mountinfo import parse_mounts_at, read_mounts_at

TARGET = "/var/lib/kubelet/pods/0f5f5b6a/volumes/kubernetes.io~csi/netutil/mount"
# A driver's container on a kubelet 1.20.2, some lines left out.
RECORDED = (
    b"1201 1188 0:24 /netutil /run/netutil ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw\n"
    b"1203 1188 254:0 /v/pods /var/lib/kubelet/pods rw,relatime shared:1 - ext4 /dev/vda rw\n"
    b"1240 1203 0:24 /netutil " + TARGET.encode() + b" ro,nosuid,nodev,noexec,relatime shared:77"
    b" - tmpfs tmpfs rw,size=4k\n"
)
PATHS = st.text(
    alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40
).map(lambda text: "/" + text)


def line(point: str, root: str = "/", options: str = "rw", optional: str = "") -> bytes:
    """A line as the kernel writes it: fs/proc_namespace.c, show_mountinfo."""
    start = f"30 1 0:24 {escaped(root)} {escaped(point)}"
    return f"{start} {options}{optional} - tmpfs tmpfs rw\n".encode()


def escaped(path: str) -> str:
    return re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", path)


def test_a_recorded_mount_has_its_flags() -> None:
    (mount,) = parse_mounts_at(RECORDED, TARGET)
    (source,) = parse_mounts_at(RECORDED, "/run/netutil")
    assert mount.is_read_only and mount.is_shared and mount.is_same_directory(source)
    assert not source.is_shared and not source.is_of_removed_directory
    (pods,) = parse_mounts_at(RECORDED, "/var/lib/kubelet/pods")
    assert pods.is_shared and not pods.is_read_only


@pytest.mark.parametrize("point", ["/", "/run", "/run/netutil/", TARGET + "/x", ""])
def test_a_path_that_is_no_mount_has_none(point: str) -> None:
    assert parse_mounts_at(RECORDED, point) == ()


def test_stacked_mounts_come_in_the_kernels_order() -> None:
    text = line("/t", root="/lower") + line("/x") + line("/t", root="/upper")
    assert [mount.root for mount in parse_mounts_at(text, "/t")] == ["/lower", "/upper"]


def test_a_mount_of_a_removed_directory_is_recognized() -> None:
    (mount,) = parse_mounts_at(line("/t", root="/netutil//deleted"), "/t")
    (present,) = parse_mounts_at(line("/t", root="/netutil"), "/t")
    assert mount.is_of_removed_directory and not mount.is_same_directory(present)


@pytest.mark.parametrize(
    ("optional", "is_shared"),
    [("", False), (" shared:3", True), (" master:3", False), (" shared:3 master:1", True)],
)
def test_only_a_peer_group_makes_a_mount_shared(optional: str, is_shared: bool) -> None:
    (mount,) = parse_mounts_at(line("/t", optional=optional), "/t")
    assert mount.is_shared == is_shared


def test_a_read_only_file_system_makes_no_mount_read_only() -> None:
    (mount,) = parse_mounts_at(line("/t").replace(b"tmpfs rw", b"tmpfs ro"), "/t")
    assert not mount.is_read_only


@pytest.mark.parametrize(
    "broken", [b"30 1 0:24 / /t", b"30 1 0:24 / /t rw shared:1", b"1 2 3 4 /t -"]
)
def test_a_malformed_line_of_the_path_is_an_error(broken: bytes) -> None:
    with pytest.raises(VolumeFailed, match="not as documented"):
        parse_mounts_at(RECORDED + broken + b"\n", "/t")


@given(PATHS, PATHS)
def test_any_mount_point_is_found_by_its_path(point: str, root: str) -> None:
    (mount,) = parse_mounts_at(RECORDED + line(point, root) + RECORDED, point)
    assert (mount.point, mount.root) == (point, root)


@given(st.binary(max_size=400), PATHS)
def test_any_bytes_give_mounts_or_an_error(text: bytes, point: str) -> None:
    try:
        mounts = parse_mounts_at(text, point)
    except VolumeFailed:
        return
    assert all(mount.point == point for mount in mounts)


def test_the_time_grows_with_the_lines_and_no_faster() -> None:
    def seconds(lines: int) -> float:
        text = RECORDED + b"".join(line(f"/pods/{number}/a b") for number in range(lines))
        taken = []
        for _ in range(3):
            start = time.process_time()
            assert len(parse_mounts_at(text, TARGET)) == 1
            taken.append(time.process_time() - start)
        return min(taken)

    few, many = seconds(10_000), seconds(100_000)
    assert many < 30 * few and many < 5.0


def test_a_text_beyond_the_limit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mountinfo"
    path.write_bytes(RECORDED)
    assert len(read_mounts_at(TARGET, str(path), len(RECORDED))) == 1
    with pytest.raises(VolumeFailed, match="too many mounts"):
        read_mounts_at(TARGET, str(path), len(RECORDED) - 1)


def test_the_mounts_of_this_process_are_read() -> None:
    assert len(read_mounts_at("/proc")) >= 1
