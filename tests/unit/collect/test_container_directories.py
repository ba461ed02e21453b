"""In which hierarchy a controller's files of a container are, and which directories are watched."""

from __future__ import annotations

from typing import Any

from netutil.agent.collect.container_directories import ContainerDirectories
from netutil.agent.facts.cgroup_levels import CgroupLevel
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import identify

ID = "4c1f" * 16
POD = "/kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
PATH = f"{POD}/{ID}"
V1, V2 = "/sys/fs/cgroup", "/sys/fs/cgroup/unified"
NOTHING: Any = None


def directories(*controllers: str) -> ContainerDirectories:
    """An agent on a node with these hierarchies; "" is cgroup v2's."""
    hierarchies = {
        name: Hierarchy(1, f"{V1}/{name}") if name else Hierarchy(2, V2) for name in controllers
    }
    return ContainerDirectories(CgroupTree(hierarchies), NOTHING)


def test_each_cgroup_v1_controller_has_its_own_tree_and_levels() -> None:
    text = f"3:cpuset:{PATH}\n2:cpu:{PATH}\n0::/\n"
    found = directories("cpuset", "cpu", UNIFIED).cpu(identify(text))
    assert found is not None and found.cpu is not None
    assert (found.cpuset, found.cpu.directory) == (f"{V1}/cpuset{PATH}", f"{V1}/cpu{PATH}")
    for levels, top in ((found.cpuset_levels, "cpuset"), (found.cpu.levels, "cpu")):
        assert levels[1] == (CgroupLevel.POD, f"{V1}/{top}{POD}")
        assert levels[-1] == (CgroupLevel.ABOVE, f"{V1}/{top}")


def test_a_hybrid_node_s_cpu_controller_is_found_on_cgroup_v2() -> None:
    text = f"3:cpuset:{PATH}\n0::{PATH}\n"
    found = directories("cpuset", UNIFIED).cpu(identify(text))
    assert found is not None and found.cpu is not None
    assert (found.cgroup_version, found.cpu.cgroup_version) == (1, 2)
    assert found.cpu.directory == f"{V2}{PATH}"


def test_a_container_outside_the_v1_cpu_tree_has_no_cpu_cgroup() -> None:
    """No cpu.max is there, and to read none would be to say that there is no limit."""
    text = f"3:cpuset:{PATH}\n2:cpu:/\n0::{PATH}\n"
    found = directories("cpuset", "cpu", UNIFIED).cpu(identify(text))
    assert found is not None and found.cpu is None


def test_all_of_cgroup_v2_is_one_directory_watched_once() -> None:
    watched = directories(UNIFIED).watched(identify(f"0::{PATH}\n"))
    assert watched.own == (f"{V2}{PATH}",)
    above = (POD, "/kubepods/burstable", "/kubepods", "")
    assert watched.above == tuple(f"{V2}{path}" for path in above)


def test_the_levels_of_every_v1_controller_are_watched() -> None:
    text = f"4:hugetlb:{PATH}\n3:cpuset:{PATH}\n2:cpu:{PATH}\n"
    watched = directories("cpuset", "cpu", "hugetlb").watched(identify(text))
    names = ("cpuset", "cpu", "hugetlb")
    assert watched.own == tuple(f"{V1}/{name}{PATH}" for name in names)
    assert {f"{V1}/{name}{POD}" for name in names} < set(watched.above)
    assert not set(watched.own) & set(watched.above)


def test_a_process_in_the_pods_own_cgroup_starts_at_its_level() -> None:
    text = f"4:hugetlb:{POD}\n3:cpuset:{POD}\n2:cpu:{POD}\n"
    all_of_it = directories("cpuset", "cpu", "hugetlb")
    cpu, hugetlb = (
        all_of_it.cpu(identify(text)),
        all_of_it.hugetlb(identify(text)),
    )
    assert cpu is not None and cpu.cpu is not None and hugetlb is not None
    for levels in (cpu.cpuset_levels, cpu.cpu.levels, hugetlb.levels):
        assert levels[0][0] is CgroupLevel.POD


def test_a_cgroup_that_names_pod_and_container_is_the_containers() -> None:
    uid = POD.rpartition("/pod")[2].replace("-", "_")
    text = f"2:cpu,cpuset:/system.slice/kubepods-burstable-pod{uid}.slice:cri-containerd:{ID}\n"
    found = directories("cpuset", "cpu").cpu(identify(text))
    assert found is not None and found.cpu is not None
    assert found.cpu.levels[0][0] is CgroupLevel.CONTAINER and found.cpu.pod is None
