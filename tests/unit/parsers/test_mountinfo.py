"""From real /proc/<pid>/mountinfo texts to the cgroup mounts in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.cgroup import CgroupMount, parse_cgroup_mounts

OTHERS = (
    "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    "23 27 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw\n"
    "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
    "31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755\n"
)


def v1(options: str, mount_point: str, root: str = "/") -> CgroupMount:
    return CgroupMount(1, frozenset(options.split(",")), mount_point, root)


def v2(options: str, mount_point: str, root: str = "/") -> CgroupMount:
    return CgroupMount(2, frozenset(options.split(",")), mount_point, root)


REAL_WORLD: dict[str, tuple[str, tuple[CgroupMount, ...]]] = {
    "cgroup v2 of systemd": (
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2"
        " rw,nsdelegate,memory_recursiveprot\n",
        (v2("rw,nsdelegate,memory_recursiveprot", "/sys/fs/cgroup"),),
    ),
    "cgroup v1, controllers mounted together and a named hierarchy": (
        "33 31 0:29 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup"
        " rw,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd\n"
        "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:16 - cgroup cgroup"
        " rw,cpu,cpuacct\n"
        "37 31 0:34 / /sys/fs/cgroup/cpuset rw,nosuid shared:17 - cgroup cgroup"
        " rw,cpuset,clone_children\n",
        (
            v1(
                "rw,xattr,release_agent=/usr/lib/systemd/systemd-cgroups-agent,name=systemd",
                "/sys/fs/cgroup/systemd",
            ),
            v1("rw,cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
            v1("rw,cpuset,clone_children", "/sys/fs/cgroup/cpuset"),
        ),
    ),
    "hybrid: v1 controllers beside a v2 tree without any": (
        "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        (v1("rw,cpuset", "/sys/fs/cgroup/cpuset"), v2("rw", "/sys/fs/cgroup/unified")),
    ),
    "the host's tree bound into the agent's container, beside its own": (
        "512 480 0:26 /../../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
        "530 480 0:26 / /host/sys/fs/cgroup ro,nosuid master:9 - cgroup2 cgroup2 rw,nsdelegate\n",
        (
            v2("rw,nsdelegate", "/sys/fs/cgroup", "/../../.."),
            v2("rw,nsdelegate", "/host/sys/fs/cgroup"),
        ),
    ),
    "a container of Docker on cgroup v1: its own cgroup is what is mounted": (
        "812 810 0:34 /docker/4c1f /sys/fs/cgroup/cpuset ro,nosuid master:17 - cgroup cgroup"
        " rw,cpuset\n",
        (v1("rw,cpuset", "/sys/fs/cgroup/cpuset", "/docker/4c1f"),),
    ),
    "one hierarchy mounted twice keeps the file's order": (
        "41 31 0:38 /a /mnt/a rw - cgroup2 none rw\n40 31 0:38 / /mnt rw - cgroup2 none rw\n",
        (v2("rw", "/mnt/a", "/a"), v2("rw", "/mnt")),
    ),
    "several optional fields": (
        "61 31 0:38 / /mnt rw shared:1 master:2 propagate_from:3 unbindable - cgroup2 none rw\n",
        (v2("rw", "/mnt"),),
    ),
    "blank, tab, newline, backslash and number sign are written as octal numbers": (
        "61 31 0:38 /a\\134b\\043 /mnt/one\\040two\\011three\\012four rw - cgroup2 none rw\n",
        (v2("rw", "/mnt/one two\tthree\nfour", "/a\\b#"),),
    ),
    "a backslash before digits is read once": (
        "61 31 0:38 / /mnt/\\134040 rw - cgroup2 none rw\n",
        (v2("rw", "/mnt/\\040"),),
    ),
    "a source without a name": (
        "61 31 0:38 / /mnt rw - cgroup2  rw\n",
        (v2("rw", "/mnt"),),
    ),
    "no newline at the end": ("61 31 0:38 / /mnt rw - cgroup2 none rw", (v2("rw", "/mnt"),)),
}


@pytest.mark.parametrize("case", REAL_WORLD)
def test_the_cgroup_mounts_are_found_among_the_others(case: str) -> None:
    text, expected = REAL_WORLD[case]
    assert parse_cgroup_mounts(OTHERS + text) == expected
    assert parse_cgroup_mounts(text) == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("61 31 0:50 / /cgroup rw - ext4 cgroup2 rw,cpuset", id="a source named so"),
        pytest.param("61 31 0:50 /cgroup2 /cgroup2 rw - tmpfs tmpfs rw", id="paths named so"),
        pytest.param("61 31 0:50 / /mnt rw - fuse.cgroup none rw,cpuset", id="a FUSE type"),
        pytest.param("61 31 0:50 / /mnt rw - cgroup3 none rw", id="a type that begins so"),
        pytest.param(
            "61 31 0:50 / /a\\040-\\040cgroup2 rw - tmpfs x rw", id="a separator in a path"
        ),
        pytest.param("61 31 0:50 / /a\r0 0 0:1 / /b rw - tmpfs x rw", id="a carriage return"),
        pytest.param("61 31 0:50 / /mnt rw cgroup2 none rw", id="no separator"),
        pytest.param("0:50 / /mnt rw - cgroup2 none rw", id="too few fields before it"),
        pytest.param("61 31 0:50 / /mnt rw - cgroup2 none", id="too few fields after it"),
        pytest.param("", id="an empty line"),
    ],
)
def test_other_mounts_are_skipped(line: str) -> None:
    assert parse_cgroup_mounts(f"{OTHERS}{line}\n") == ()


@pytest.mark.parametrize("separator", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_mount_point_cannot_add_a_line(separator: str) -> None:
    added = f"9 9 0:9 / /forged rw - cgroup2 none rw{separator}"
    text = f"61 31 0:50 / /mnt{separator}{added.replace(' ', chr(92) + '040')} rw - tmpfs x rw\n"
    assert parse_cgroup_mounts(text) == ()


paths = st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: f"/{text}")
options = st.frozensets(
    st.text(st.characters(exclude_characters=", \t\n\\", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
)


def escaped(text: str) -> str:
    """As mangle_path and seq_escape of the kernel's fs/proc_namespace.c write it."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


@given(st.sampled_from([1, 2]), paths, paths, options, st.lists(st.just("shared:7"), max_size=3))
def test_mounts_that_the_kernel_writes_come_back(
    version: int, root: str, mount_point: str, flags: frozenset[str], optional: list[str]
) -> None:
    kind = "cgroup" if version == 1 else "cgroup2"
    fields = [f"61 31 0:38 {escaped(root)} {escaped(mount_point)} rw", *optional]
    text = f"{' '.join(fields)} - {kind} none {','.join(flags)}\n"
    assert parse_cgroup_mounts(OTHERS + text + OTHERS) == (
        CgroupMount(version, flags, mount_point, root),
    )


@given(st.one_of(st.text(), st.text().map(lambda text: f"1 2 3 {text} - cgroup2 {text} {text}\n")))
def test_any_text_gives_mounts_of_version_1_or_2(text: str) -> None:
    assert all(mount.version in (1, 2) for mount in parse_cgroup_mounts(text))
