"""CPUs of a container, from trees as the kernel lays them out and from the kernel itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.cgroup_levels import CgroupLevel, ControllerDirectory
from netutil.agent.facts.cpu import CpuBandwidth, CpuDirectories, CpuFacts, CpuLimit, read_cpu
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.hierarchy import UNIFIED
from netutil.agent.identity.pidfd import pin_pid

from tests.support.lab.lab import Lab, why_no_lab
from tests.support.lab.pod import LabContainer

POD = "kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
CONTAINER = f"{POD}/{'4c1f' * 16}"

# On cgroup v1 every cgroup has every file, and a cpuset with processes is never empty.
PLACES = {
    "container": CONTAINER,
    "pod": POD,
    "qos_class": "kubepods/burstable",
    "kubepods": "kubepods",
    "above": ".",
}
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


Layout = Callable[[Path, Mapping[str, str | None] | None], CpuDirectories]


def write(top: Path, files: Mapping[str, str | None]) -> None:
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (top / name).write_text(text, encoding="utf-8")


def v1(top: Path, changes: Mapping[str, str | None] | None = None) -> CpuDirectories:
    """A tree with `changes`; None takes a file away."""
    write(top, {**V1, **(changes or {})})
    cpu = ControllerDirectory(
        1, f"{top}/cpu,cpuacct/{CONTAINER}", f"{top}/cpu,cpuacct", f"{top}/cpu,cpuacct/{POD}"
    )
    cpuset = f"{top}/cpuset"
    return CpuDirectories(1, f"{cpuset}/{CONTAINER}", cpuset, cpu, f"{cpuset}/{POD}")


def v2(top: Path, changes: Mapping[str, str | None] | None = None) -> CpuDirectories:
    write(top, {**V2, **(changes or {})})
    directory, pod = f"{top}/{CONTAINER}", f"{top}/{POD}"
    cpu = ControllerDirectory(2, directory, str(top), pod)
    return CpuDirectories(2, directory, str(top), cpu, pod)


def test_cgroup_v1_has_set_effective_set_quota_and_shares(tmp_path: Path) -> None:
    facts = read_cpu(v1(tmp_path))
    limit = CpuLimit(250000, 100000)
    bandwidth = CpuBandwidth(limit, CgroupLevel.CONTAINER, limit, 100000, shares=2048)
    assert facts == CpuFacts("2-3,6", "2-3", bandwidth, 1)
    assert facts.bandwidth.quota_cores == 2.5


def test_a_cgroup_v1_quota_of_minus_one_is_no_quota(tmp_path: Path) -> None:
    files = {f"cpu,cpuacct/{CONTAINER}/cpu.cfs_quota_us": "-1\n"}
    bandwidth = read_cpu(v1(tmp_path, files)).bandwidth
    assert bandwidth == CpuBandwidth(own_period_microseconds=100000, shares=2048)
    assert bandwidth.quota_cores is None


def test_cgroup_v1_without_bandwidth_control_has_shares_only(tmp_path: Path) -> None:
    quota, period = (f"cpu,cpuacct/{CONTAINER}/cpu.cfs_{what}_us" for what in ("quota", "period"))
    assert read_cpu(v1(tmp_path, {quota: None, period: None})).bandwidth == CpuBandwidth(
        shares=2048
    )


def test_an_empty_cgroup_v2_set_means_the_nearest_set_above(tmp_path: Path) -> None:
    bandwidth = CpuBandwidth(own_period_microseconds=100000, weight=79)
    assert read_cpu(v2(tmp_path)) == CpuFacts("0-5", "0-5", bandwidth, 2)


def test_cgroup_v2_empty_up_to_the_root_means_all_of_the_node(tmp_path: Path) -> None:
    facts = read_cpu(v2(tmp_path, {"kubepods/cpuset.cpus": "\n"}))
    assert facts.cpuset == "0-7"


def test_a_cgroup_v2_set_counts_though_other_cpus_are_effective(tmp_path: Path) -> None:
    own = {f"{CONTAINER}/cpuset.cpus": "4-9\n", f"{CONTAINER}/cpuset.cpus.effective": "4-5\n"}
    facts = read_cpu(v2(tmp_path, own))
    assert (facts.cpuset, facts.effective_cpus) == ("4-9", "4-5")


def test_cgroup_v2_without_a_cpuset_takes_the_set_above(tmp_path: Path) -> None:
    off = (f"{place}/cpuset.cpus{end}" for place in (CONTAINER, POD) for end in ("", ".effective"))
    facts = read_cpu(v2(tmp_path, dict.fromkeys(off)))
    assert (facts.cpuset, facts.effective_cpus) == ("0-5", "0-5")


def test_cgroup_v2_without_the_cpu_controller_is_without_limit(tmp_path: Path) -> None:
    off = {
        f"{CONTAINER}/cpu.max": None,
        f"{CONTAINER}/cpu.weight": None,
        "cgroup.controllers": "cpuset cpu io memory\n",
    }
    assert read_cpu(v2(tmp_path, off)).bandwidth == CpuBandwidth()


def test_an_unseen_v2_cpu_controller_leaves_limits_unknown(
    tmp_path: Path,
) -> None:
    off = {
        f"{CONTAINER}/cpu.max": None,
        f"{CONTAINER}/cpu.weight": None,
        "cgroup.controllers": "cpuset io memory\n",
    }
    assert read_cpu(v2(tmp_path, off)).bandwidth == CpuBandwidth(is_known=False)


@pytest.mark.parametrize(
    ("text", "quota", "cores"),
    [("max 100000\n", None, None), ("50000 100000\n", 50000, 0.5), ("1000 1000000\n", 1000, 0.001)],
)
def test_cgroup_v2_cpu_max(
    tmp_path: Path, text: str, quota: int | None, cores: float | None
) -> None:
    bandwidth = read_cpu(v2(tmp_path, {f"{CONTAINER}/cpu.max": text})).bandwidth
    found = bandwidth.limit.quota_microseconds if bandwidth.limit else None
    assert (found, bandwidth.quota_cores) == (quota, cores)


def test_hybrid_reads_the_cpuset_of_v1_and_not_of_v2(tmp_path: Path) -> None:
    write(tmp_path, {f"unified/{CONTAINER}/cpu.max": "1 2\n", "unified/cpuset.cpus.effective": "9"})
    assert read_cpu(v1(tmp_path)).cpuset == "2-3,6"


def test_a_container_without_a_cpu_cgroup_has_an_unknown_limit(tmp_path: Path) -> None:
    whole = v1(tmp_path)
    bandwidth = read_cpu(CpuDirectories(1, whole.cpuset, whole.cpuset_top, None)).bandwidth
    assert bandwidth == CpuBandwidth(is_known=False)


def test_hybrid_reads_the_limit_where_cpu_is_a_controller_of_v2(tmp_path: Path) -> None:
    whole = v1(tmp_path)
    unified = tmp_path / "unified"
    write(unified, {f"{CONTAINER}/cpu.max": "50000 100000\n"})
    cpu = ControllerDirectory(2, f"{unified}/{CONTAINER}", str(unified), f"{unified}/{POD}")
    bandwidth = read_cpu(CpuDirectories(1, whole.cpuset, whole.cpuset_top, cpu)).bandwidth
    assert (bandwidth.quota_cores, bandwidth.shares) == (0.5, None)


def test_no_file_above_the_mount_point_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"cpuset.cpus": "0-63\n", "cpuset.cpus.effective": "0-63\n"})
    (tmp_path / "mount" / CONTAINER).mkdir(parents=True)
    top = tmp_path / "mount"
    with pytest.raises(FailedPrecondition) as refusal:
        read_cpu(CpuDirectories(2, f"{top}/{CONTAINER}", str(top), None))
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND
    assert f"{top}/{CONTAINER}" in refusal.value.read


@pytest.mark.parametrize("layout", [v1, v2])
def test_a_removed_container_gets_no_cpus_of_its_parent(
    tmp_path: Path, layout: Callable[[Path], CpuDirectories]
) -> None:
    directories = layout(tmp_path)
    shutil.rmtree(directories.cpuset)
    with pytest.raises(FailedPrecondition) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND
    assert refusal.value.read == directories.cpuset


def limits_v1(**quotas: int) -> dict[str, str]:
    """Quotas in microseconds of a period of 100 ms, by level; -1 for none."""
    files: dict[str, str] = {}
    for level, quota in quotas.items():
        files[f"cpu,cpuacct/{PLACES[level]}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"cpu,cpuacct/{PLACES[level]}/cpu.cfs_period_us"] = "100000\n"
    return files


def limits_v2(**quotas: int) -> dict[str, str]:
    return {
        f"{PLACES[level]}/cpu.max": f"{'max' if quota < 0 else quota} 100000\n"
        for level, quota in quotas.items()
    }


LIMITED = [(v1, limits_v1), (v2, limits_v2)]


@pytest.mark.parametrize(("layout", "limits"), LIMITED)
@pytest.mark.parametrize(
    ("quotas", "cores", "level", "own"),
    [
        ({"container": -1, "pod": 50000}, 0.5, CgroupLevel.POD, None),
        ({"container": 200000, "pod": 50000, "kubepods": 25000}, 0.25, CgroupLevel.KUBEPODS, 2.0),
        ({"container": 50000, "pod": 50000}, 0.5, CgroupLevel.CONTAINER, 0.5),
        ({"container": 50000, "pod": 200000, "qos_class": 90000}, 0.5, CgroupLevel.CONTAINER, 0.5),
        ({"container": -1, "qos_class": 300000, "pod": -1}, 3.0, CgroupLevel.QOS_CLASS, None),
        ({"container": -1, "above": 150000}, 1.5, CgroupLevel.ABOVE, None),
        ({"container": -1, "pod": -1, "kubepods": -1}, None, None, None),
    ],
)
def test_the_smallest_limit_up_to_the_root_names_its_cgroup(
    tmp_path: Path,
    layout: Layout,
    limits: Callable[..., dict[str, str]],
    quotas: dict[str, int],
    cores: float | None,
    level: CgroupLevel | None,
    own: float | None,
) -> None:
    bandwidth = read_cpu(layout(tmp_path, limits(**quotas))).bandwidth
    assert (bandwidth.quota_cores, bandwidth.level) == (cores, level)
    assert (bandwidth.own_limit.cores if bandwidth.own_limit else None) == own
    assert bandwidth.own_period_microseconds == 100000


@pytest.mark.parametrize(("layout", "limits"), LIMITED)
@pytest.mark.parametrize(
    ("pod", "kubepods", "cores", "level"),
    [
        (50000, -1, 0.5, CgroupLevel.POD),
        (50000, 25000, 0.25, CgroupLevel.KUBEPODS),
        (-1, -1, None, None),
    ],
)
def test_a_limit_of_the_pods_own_cgroup_is_the_pods(
    tmp_path: Path,
    layout: Layout,
    limits: Callable[..., dict[str, str]],
    pod: int,
    kubepods: int,
    cores: float | None,
    level: CgroupLevel | None,
) -> None:
    found = layout(tmp_path, limits(pod=pod, kubepods=kubepods))
    assert found.cpu is not None and found.cpu.pod is not None and found.cpuset_pod is not None
    cpu = replace(found.cpu, directory=found.cpu.pod)
    bandwidth = read_cpu(structs.replace(found, cpuset=found.cpuset_pod, cpu=cpu)).bandwidth
    assert (bandwidth.quota_cores, bandwidth.level) == (cores, level)
    assert (bandwidth.own_limit, bandwidth.own_period_microseconds) == (None, None)
    assert bandwidth.is_known


def test_limits_of_other_periods_are_compared_by_their_cpus(tmp_path: Path) -> None:
    files = {f"{CONTAINER}/cpu.max": "20000 10000\n", f"{POD}/cpu.max": "150000 100000\n"}
    bandwidth = read_cpu(v2(tmp_path, files)).bandwidth
    assert bandwidth.limit == CpuLimit(150000, 100000)
    assert bandwidth.own_limit == CpuLimit(20000, 10000)


def test_an_impossible_limit_above_is_refused_and_named(tmp_path: Path) -> None:
    for name, text in (("cpu.max", "50000 0\n"), ("cpu.max", "lots\n")):
        assert_names_the_file(v2(tmp_path, {f"{POD}/{name}": text}), tmp_path / POD / name)


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
    with pytest.raises(FailedPrecondition) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CGROUP_FILE_UNUSABLE
    assert refusal.value.read == str(file)
    assert str(file) in refusal.value.message
    assert len(refusal.value.message) < len(str(file)) + 200


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


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    name = "cpu" if "cpu" in tree.hierarchies else UNIFIED
    directory, pod = tree.container_directory(identity, name), identity.pod_path(name)
    assert directory is not None and pod is not None
    found = tree.hierarchies[name]
    cpu = ControllerDirectory(found.version, directory, found.directory, found.resolve(pod))
    return CpuDirectories(hierarchy.version, cpuset, hierarchy.directory, cpu)


@pytest.mark.root
def test_the_kernels_files_agree_with_the_processs_allowed_cpus(
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
def test_the_kernels_limit_of_the_pod_holds_for_its_container(
    container: LabContainer,
) -> None:
    other = container.pod.container("unlimited")
    directories = directories_of(other.pid)
    assert read_cpu(directories).bandwidth.limit is None
    container.pod.limit(0.8)
    try:
        bandwidth = read_cpu(directories).bandwidth
        assert (bandwidth.quota_cores, bandwidth.level) == (0.8, CgroupLevel.POD)
        assert bandwidth.own_limit is None
        sibling = read_cpu(directories_of(container.pid)).bandwidth
        assert (sibling.quota_cores, sibling.level) == (0.75, CgroupLevel.CONTAINER)
    finally:
        container.pod.limit(None)
    assert read_cpu(directories).bandwidth.limit is None
    other.kill()


@pytest.mark.root
def test_the_kernel_throttles_at_the_reported_limit(container: LabContainer) -> None:
    """No file of the container's own cgroup has that limit."""
    busy = container.pod.container("busy", argv=["/bin/sh", "-c", "while :; do :; done"])
    container.pod.limit(0.75)
    try:
        quota = read_cpu(directories_of(busy.pid)).bandwidth.quota_cores
        assert quota is not None
        before, begun = cpu_seconds(busy.pid), time.monotonic()
        time.sleep(2)
        used = (cpu_seconds(busy.pid) - before) / (time.monotonic() - begun)
    finally:
        container.pod.limit(None)
        busy.kill()
    assert used <= quota * 1.2


@pytest.mark.root
def test_a_container_that_was_removed_has_no_cpuset(container: LabContainer) -> None:
    other = container.pod.container("short-lived")
    directories = directories_of(other.pid)
    assert read_cpu(directories).cpuset
    other.kill()
    with pytest.raises(FailedPrecondition) as refusal:
        read_cpu(directories)
    assert refusal.value.reason is Reason.CPUSET_NOT_FOUND


@pytest.mark.parametrize("cpu", [CPUS[0], CPUS[-1]])
def test_a_pinned_processs_affinity_is_the_one_it_set(cpu: int) -> None:
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
