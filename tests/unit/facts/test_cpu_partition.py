"""The kernel's account of other users of a container's CPUs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.cgroup_levels import CgroupLevel
from netutil.agent.facts.cpu_partition import CpusetPartition, read_partition

from tests.support.lab.lab import Lab, why_no_lab
from tests.unit.facts.test_cpu import CONTAINER, POD, directories_of, v1, v2

# As Linux 6.7 and later show them: no file of these is in the root.
MEMBERS = {f"{place}/cpuset.cpus.partition": "member\n" for place in (CONTAINER, POD, "kubepods")}
NOT_EXCLUSIVE = {
    f"{place}/cpuset.cpus.exclusive{end}": "\n"
    for place in (CONTAINER, POD, "kubepods")
    for end in ("", ".effective")
}


def read(top: Path, changes: Mapping[str, str | None]) -> CpusetPartition:
    return read_partition(v2(top, {**MEMBERS, **NOT_EXCLUSIVE, **changes}))


def test_members_up_to_the_root_are_in_no_partition(tmp_path: Path) -> None:
    assert read(tmp_path, {}) == CpusetPartition("member", requested_cpus="")


@pytest.mark.parametrize("state", ["root", "isolated"])
@pytest.mark.parametrize(
    ("place", "level"),
    [
        (CONTAINER, CgroupLevel.CONTAINER),
        (POD, CgroupLevel.POD),
        ("kubepods", CgroupLevel.KUBEPODS),
    ],
)
def test_the_nearest_partition_root_has_its_level_and_cpus(
    tmp_path: Path, state: str, place: str, level: CgroupLevel
) -> None:
    found = read(
        tmp_path,
        {
            f"{place}/cpuset.cpus.partition": f"{state}\n",
            f"{place}/cpuset.cpus.exclusive": "2-3\n",
            f"{place}/cpuset.cpus.exclusive.effective": "2-3\n",
        },
    )
    requested = "2-3" if place == CONTAINER else ""
    assert found == CpusetPartition(state, "", level, "2-3", requested)


def test_an_inner_partition_counts_before_an_outer_one(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            f"{CONTAINER}/cpuset.cpus.partition": "isolated\n",
            f"{CONTAINER}/cpuset.cpus.exclusive.effective": "2\n",
            "kubepods/cpuset.cpus.partition": "root\n",
            "kubepods/cpuset.cpus.exclusive.effective": "1-3\n",
        },
    )
    assert (found.state, found.level) == ("isolated", CgroupLevel.CONTAINER)
    assert found.exclusive_cpus == "2"


def test_an_invalid_partition_keeps_no_cpus_and_says_why(tmp_path: Path) -> None:
    text = "isolated invalid (Cpu list in cpuset.cpus not exclusive)\n"
    found = read(
        tmp_path,
        {
            f"{CONTAINER}/cpuset.cpus.partition": text,
            f"{CONTAINER}/cpuset.cpus.exclusive.effective": "2-3\n",
        },
    )
    assert (found.state, found.level) == ("isolated invalid", CgroupLevel.CONTAINER)
    assert found.invalid_reason == "Cpu list in cpuset.cpus not exclusive"
    assert found.exclusive_cpus is None


def test_a_requested_partition_is_reported_as_a_request(tmp_path: Path) -> None:
    changes = {
        f"{CONTAINER}/cpuset.cpus.exclusive": "2-3\n",
        f"{CONTAINER}/cpuset.cpus.exclusive.effective": "2-3\n",
    }
    found = read(tmp_path, changes)
    assert found == CpusetPartition("member", requested_cpus="2-3")


def test_a_kernel_before_6_7_has_partitions_without_these_lists(tmp_path: Path) -> None:
    found = read_partition(v2(tmp_path, {f"{CONTAINER}/cpuset.cpus.partition": "root\n"}))
    assert found == CpusetPartition("root", level=CgroupLevel.CONTAINER)


def test_a_kernel_without_the_file_has_an_unknown_partition(tmp_path: Path) -> None:
    assert read_partition(v2(tmp_path)) == CpusetPartition()


@pytest.mark.parametrize(("text", "flag"), [("0\n", False), ("1\n", True)])
def test_cgroup_v1_has_a_flag(tmp_path: Path, text: str, flag: bool) -> None:
    name = f"cpuset/{CONTAINER}/cpuset.cpu_exclusive"
    assert read_partition(v1(tmp_path, {name: text})) == CpusetPartition(cpu_exclusive=flag)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpuset.cpus.partition", "shared\n"),
        ("cpuset.cpus.partition", "root invalid (a\nb)\n"),
        ("cpuset.cpus.exclusive", "all\n"),
    ],
)
def test_an_impossible_value_is_refused_and_named(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        read(tmp_path, {f"{CONTAINER}/{name}": text})
    assert refusal.value.reason is Reason.CGROUP_FILE_UNUSABLE
    assert refusal.value.read == str(tmp_path / CONTAINER / name)


def test_a_removed_container_gets_no_partition_of_its_parent(tmp_path: Path) -> None:
    directories = v2(tmp_path, {f"{POD}/cpuset.cpus.partition": "isolated\n"})
    shutil.rmtree(directories.cpuset)
    with pytest.raises(FailedPrecondition) as refusal:
        read_partition(directories)
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND


@given(
    st.sampled_from(["root", "isolated"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=200),
)
def test_every_reason_of_the_kernel_is_kept_word_for_word(
    tmp_path_factory: pytest.TempPathFactory, state: str, reason: str
) -> None:
    top = tmp_path_factory.mktemp("cgroup")
    text = f"{state} invalid ({reason})\n"
    found = read_partition(v2(top, {f"{CONTAINER}/cpuset.cpus.partition": text}))
    assert (found.state, found.invalid_reason) == (f"{state} invalid", reason)


@pytest.mark.root
def test_the_kernel_s_own_files_are_understood() -> None:
    missing = why_no_lab()
    if missing:
        pytest.skip(missing)
    with Lab() as lab:
        directories = directories_of(lab.pod("web").container("app").pid)
        found = read_partition(directories)
        if directories.cgroup_version == 1:
            assert found == CpusetPartition(cpu_exclusive=False)
            return
        assert (found.state, found.level, found.cpu_exclusive) == ("member", None, None)
        # The pod's cgroup is no partition root, so the kernel says that this is none either.
        Path(directories.cpuset, "cpuset.cpus.partition").write_text("isolated", encoding="ascii")
        invalid = read_partition(directories)
    assert (invalid.state, invalid.level) == ("isolated invalid", CgroupLevel.CONTAINER)
    assert invalid.invalid_reason and invalid.exclusive_cpus is None
