"""CPUs of a container, from trees as the kernel lays them out and from the kernel itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from netutil.agent.errors import Inconsistent, Reason
from netutil.agent.facts.cpu import CpuBandwidth, CpuDirectories, CpuFacts, read_cpu
from netutil.agent.identity.cgroups import UNIFIED, read_cgroup_tree
from netutil.agent.identity.pinning import pin_pid

from tests.lab.lab import Lab, why_no_lab
from tests.lab.pod import LabContainer

POD = "kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
CONTAINER = f"{POD}/{'4c1f' * 16}"

# On cgroup v1 every cgroup has every file, and a cpuset with processes is never empty.
V1: dict[str, str] = {
    "cpuset/cpuset.cpus": "0-7\n",
    "cpuset/cpuset.effective_cpus": "0-7\n",
    f"cpuset/{POD}/cpuset.cpus": "0-7\n",
    f"cpuset/{POD}/cpuset.effective_cpus": "0-7\n",
    f"cpuset/{CONTAINER}/cpuset.cpus": "2-3,6\n",
    f"cpuset/{CONTAINER}/cpuset.effective_cpus": "2-3\n",
    f"cpu,cpuacct/{CONTAINER}/cpu.cfs_quota_us": "250000\n",
    f"cpu,cpuacct/{CONTAINER}/cpu.cfs_period_us": "100000\n",
    f"cpu,cpuacct/{CONTAINER}/cpu.shares": "2048\n",
}
# On cgroup v2 the root has no cpuset.cpus, cpu.max or cpu.weight, and an empty
# cpuset.cpus is usual: it means the parent's.
V2: dict[str, str] = {
    "cpuset.cpus.effective": "0-7\n",
    "kubepods/cpuset.cpus": "0-5\n",
    "kubepods/cpuset.cpus.effective": "0-5\n",
    f"{POD}/cpuset.cpus": "\n",
    f"{POD}/cpuset.cpus.effective": "0-5\n",
    f"{CONTAINER}/cpuset.cpus": "\n",
    f"{CONTAINER}/cpuset.cpus.effective": "0-5\n",
    f"{CONTAINER}/cpu.max": "max 100000\n",
    f"{CONTAINER}/cpu.weight": "79\n",
}


def write(top: Path, files: Mapping[str, str | None]) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (top / name).write_text(text, encoding="utf-8")


def v1(top: Path, changes: Mapping[str, str | None] | None = None) -> CpuDirectories:
    """A tree with `changes`; None takes a file away."""
    write(top, {**V1, **(changes or {})})
    return CpuDirectories(
        1, f"{top}/cpuset/{CONTAINER}", f"{top}/cpuset", f"{top}/cpu,cpuacct/{CONTAINER}"
    )


def v2(top: Path, changes: Mapping[str, str | None] | None = None) -> CpuDirectories:
    write(top, {**V2, **(changes or {})})
    return CpuDirectories(2, f"{top}/{CONTAINER}", str(top), f"{top}/{CONTAINER}")


def test_cgroup_v1_tells_set_effective_set_quota_and_shares(tmp_path: Path) -> None:
    facts = read_cpu(v1(tmp_path))
    assert facts == CpuFacts("2-3,6", "2-3", CpuBandwidth(250000, 100000, shares=2048), 1)
    assert facts.bandwidth.quota_cores == 2.5


def test_on_cgroup_v1_a_quota_of_minus_one_is_none(tmp_path: Path) -> None:
    files = {f"cpu,cpuacct/{CONTAINER}/cpu.cfs_quota_us": "-1\n"}
    bandwidth = read_cpu(v1(tmp_path, files)).bandwidth
    assert bandwidth == CpuBandwidth(None, 100000, shares=2048)
    assert bandwidth.quota_cores is None


def test_on_cgroup_v1_a_kernel_without_bandwidth_control_has_shares_only(tmp_path: Path) -> None:
    quota, period = (f"cpu,cpuacct/{CONTAINER}/cpu.cfs_{what}_us" for what in ("quota", "period"))
    assert read_cpu(v1(tmp_path, {quota: None, period: None})).bandwidth == CpuBandwidth(
        shares=2048
    )


def test_cgroup_v2_empty_set_means_that_of_the_nearest_cgroup_above(tmp_path: Path) -> None:
    assert read_cpu(v2(tmp_path)) == CpuFacts(
        "0-5", "0-5", CpuBandwidth(None, 100000, weight=79), 2
    )


def test_cgroup_v2_empty_up_to_the_root_means_all_of_the_node(tmp_path: Path) -> None:
    facts = read_cpu(v2(tmp_path, {"kubepods/cpuset.cpus": "\n"}))
    assert facts.cpuset == "0-7"


def test_cgroup_v2_a_set_of_its_own_counts_though_other_cpus_are_effective(tmp_path: Path) -> None:
    own = {f"{CONTAINER}/cpuset.cpus": "4-9\n", f"{CONTAINER}/cpuset.cpus.effective": "4-5\n"}
    facts = read_cpu(v2(tmp_path, own))
    assert (facts.cpuset, facts.effective_cpus) == ("4-9", "4-5")


def test_cgroup_v2_without_the_cpuset_controller_below_takes_what_is_above(tmp_path: Path) -> None:
    off = (f"{place}/cpuset.cpus{end}" for place in (CONTAINER, POD) for end in ("", ".effective"))
    facts = read_cpu(v2(tmp_path, dict.fromkeys(off)))
    assert (facts.cpuset, facts.effective_cpus) == ("0-5", "0-5")


def test_cgroup_v2_without_the_cpu_controller_is_without_limit(tmp_path: Path) -> None:
    off = {f"{CONTAINER}/cpu.max": None, f"{CONTAINER}/cpu.weight": None}
    assert read_cpu(v2(tmp_path, off)).bandwidth == CpuBandwidth()


@pytest.mark.parametrize(
    ("text", "quota", "cores"),
    [("max 100000\n", None, None), ("50000 100000\n", 50000, 0.5), ("1000 1000000\n", 1000, 0.001)],
)
def test_cgroup_v2_cpu_max(
    tmp_path: Path, text: str, quota: int | None, cores: float | None
) -> None:
    bandwidth = read_cpu(v2(tmp_path, {f"{CONTAINER}/cpu.max": text})).bandwidth
    assert (bandwidth.quota_microseconds, bandwidth.quota_cores) == (quota, cores)


def test_hybrid_reads_the_cpuset_of_v1_and_never_the_unified_tree(tmp_path: Path) -> None:
    write(tmp_path, {f"unified/{CONTAINER}/cpu.max": "1 2\n", "unified/cpuset.cpus.effective": "9"})
    assert read_cpu(v1(tmp_path)).cpuset == "2-3,6"


def test_hybrid_where_cpu_is_no_v1_hierarchy_is_without_bandwidth(tmp_path: Path) -> None:
    whole = v1(tmp_path)
    assert read_cpu(CpuDirectories(1, whole.cpuset, whole.cpuset_top, None)).bandwidth == (
        CpuBandwidth()
    )


def test_no_file_above_the_mount_point_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"cpuset.cpus": "0-63\n", "cpuset.cpus.effective": "0-63\n"})
    (tmp_path / "mount" / CONTAINER).mkdir(parents=True)
    top = tmp_path / "mount"
    with pytest.raises(Inconsistent) as refusal:
        read_cpu(CpuDirectories(2, f"{top}/{CONTAINER}", str(top), None))
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND
    assert f"{top}/{CONTAINER}" in refusal.value.read


@pytest.mark.parametrize("layout", [v1, v2])
def test_a_container_that_is_gone_does_not_get_the_cpus_of_what_stood_above_it(
    tmp_path: Path, layout: Callable[[Path], CpuDirectories]
) -> None:
    directories = layout(tmp_path)
    shutil.rmtree(directories.cpuset)
    with pytest.raises(Inconsistent) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND
    assert refusal.value.read == directories.cpuset


BROKEN_V1 = [
    (f"cpuset/{CONTAINER}/cpuset.cpus", "0-"),
    (f"cpuset/{CONTAINER}/cpuset.effective_cpus", "0,,1\n"),
    (f"cpu,cpuacct/{CONTAINER}/cpu.cfs_quota_us", "\n"),
    (f"cpu,cpuacct/{CONTAINER}/cpu.cfs_period_us", "soon\n"),
    (f"cpu,cpuacct/{CONTAINER}/cpu.shares", "9" * 5000),
]
BROKEN_V2 = [
    (f"{CONTAINER}/cpuset.cpus", "all\n"),
    (f"{CONTAINER}/cpuset.cpus", "\u0660-\u0663\n"),
    (f"{CONTAINER}/cpuset.cpus.effective", "0-3 8\n"),
    ("kubepods/cpuset.cpus", "3\n4\n"),
    (f"{CONTAINER}/cpu.max", ""),
    (f"{CONTAINER}/cpu.max", "max"),
    (f"{CONTAINER}/cpu.max", "50000 "),
    (f"{CONTAINER}/cpu.max", "-1 100000\n"),
    (f"{CONTAINER}/cpu.weight", "idle\n"),
]


def assert_names_the_file(directories: CpuDirectories, file: Path) -> None:
    with pytest.raises(Inconsistent) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CGROUP_FILE_UNUSABLE
    assert refusal.value.read == str(file)
    assert str(file) in refusal.value.sentence
    assert len(refusal.value.sentence) < len(str(file)) + 200


@pytest.mark.parametrize(("name", "text"), BROKEN_V1)
def test_cgroup_v1_what_no_kernel_writes_is_refused(tmp_path: Path, name: str, text: str) -> None:
    assert_names_the_file(v1(tmp_path, {name: text}), tmp_path / name)


@pytest.mark.parametrize(("name", "text"), BROKEN_V2)
def test_cgroup_v2_what_no_kernel_writes_is_refused(tmp_path: Path, name: str, text: str) -> None:
    assert_names_the_file(v2(tmp_path, {name: text}), tmp_path / name)


@pytest.mark.parametrize("name", ["cpuset.cpus", "cpuset.cpus.effective", "cpu.max", "cpu.weight"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / CONTAINER / name
    directories = v2(tmp_path, {f"{CONTAINER}/{name}": None})
    path.unlink(missing_ok=True)
    path.mkdir()  # not even root reads a directory as a file
    assert_names_the_file(directories, path)


CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def container() -> Iterator[LabContainer]:
    missing = why_no_lab()
    if missing:
        pytest.skip(missing)
    with Lab() as lab:
        pod = lab.pod("pinned")
        yield pod.container("app", cpus=str(CPUS[-1]), quota=0.75)


def directories_of(pid: int) -> CpuDirectories:
    text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    root = next(line for line in text.split("\n") if "/kubepods" in line).partition("/kubepods")[0]
    tree = read_cgroup_tree("/", root.rpartition(":")[2])
    identity = tree.identify(text)
    controller = "cpuset" if "cpuset" in tree.hierarchies else UNIFIED
    cpuset = tree.container_directory(identity, controller)
    assert cpuset is not None
    hierarchy = tree.hierarchies[controller]
    cpu = tree.container_directory(identity, controller and "cpu")
    return CpuDirectories(hierarchy.version, cpuset, hierarchy.directory, cpu)


@pytest.mark.root
def test_the_kernel_s_own_files_agree_with_what_the_process_may_run_on(
    container: LabContainer,
) -> None:
    facts = read_cpu(directories_of(container.pid))
    status = Path(f"/proc/{container.pid}/status").read_text(encoding="utf-8")
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
    assert allowed is not None
    assert facts.cpuset == facts.effective_cpus == allowed[1] == str(CPUS[-1])


@pytest.mark.root
def test_the_kernel_s_own_quota_is_read(container: LabContainer) -> None:
    facts = read_cpu(directories_of(container.pid))
    assert facts.bandwidth.quota_cores == 0.75
    assert (facts.bandwidth.shares, facts.bandwidth.weight) == (
        (1024, None) if facts.cgroup_version == 1 else (None, 100)
    )


@pytest.mark.root
def test_a_real_container_that_was_removed_is_gone(container: LabContainer) -> None:
    other = container.pod.container("short-lived")
    directories = directories_of(other.pid)
    assert read_cpu(directories).cpuset
    other.kill()
    with pytest.raises(Inconsistent) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[-1]])
def test_the_affinity_of_a_pinned_process_is_what_it_asked_the_kernel_for(cpu: int) -> None:
    ask = (
        "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])]);"
        " print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", ask, str(cpu)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        pinned = pin_pid(process.pid)
        try:
            assert pinned.status().cpus_allowed == str(cpu)
            pinned.ensure_alive()
        finally:
            pinned.close()
