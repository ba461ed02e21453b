"""Where the cgroup files of containers are, of one or of all on the node."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from netutil.agent.collect.container_cache import ContainerPlaces
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.cpu import CpuDirectories
from netutil.agent.identity.cgroup_walk import containers_below, pod_directories_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import CgroupIdentity


@dataclass(frozen=True, slots=True)
class WatchedDirectories:
    """The cgroup directories of a container, and those above them, without any twice."""

    own: tuple[str, ...] = ()
    above: tuple[str, ...] = ()


class ContainerDirectories:
    """Finds the cgroup directories of containers.

    `walks` counts how often all cgroups of the node were walked, which only operators have done.
    """

    def __init__(self, tree: CgroupTree, reads: ReadPool) -> None:
        self._tree = tree
        self._reads = reads
        self.walks = 0

    def cpu(self, cgroups: CgroupIdentity) -> CpuDirectories | None:
        """Return where the container's CPU files are, None where it has no cpuset hierarchy."""
        cpuset = self._directory(cgroups, "cpuset")
        if cpuset is None:
            return None
        return CpuDirectories(
            cpuset.cgroup_version,
            cpuset.directory,
            cpuset.top,
            self._directory(cgroups, "cpu"),
            cpuset.pod,
        )

    def places(self, cgroups: CgroupIdentity) -> ContainerPlaces:
        """Return where the files of a process's container are."""
        return ContainerPlaces(self.cpu(cgroups), self.hugetlb(cgroups))

    def hugetlb(self, cgroups: CgroupIdentity) -> ControllerDirectory | None:
        """Return where the container's hugetlb files are, None where it has no such hierarchy."""
        return self._directory(cgroups, "hugetlb")

    def _directory(self, cgroups: CgroupIdentity, controller: str) -> ControllerDirectory | None:
        """Return where a controller's files of the container are.

        On cgroup v2 only if the node has no v1 hierarchy of that controller: it is in one
        hierarchy at a time (cgroups(7)). None where the container has no cgroup in it.
        """
        name = controller if controller in self._tree.hierarchies else UNIFIED
        directory = self._tree.container_directory(cgroups, name)
        if directory is None:
            return None
        hierarchy = self._tree.hierarchies[name]
        pod_path = cgroups.pod_path(name)
        pod = hierarchy.resolve(pod_path) if pod_path is not None else None
        return ControllerDirectory(hierarchy.version, directory, hierarchy.directory, pod)

    def watched(self, cgroups: CgroupIdentity) -> WatchedDirectories:
        """Return the directories whose files say what of CPUs and huge pages is granted."""
        cpu, hugetlb = self.cpu(cgroups), self.hugetlb(cgroups)
        levels = [cpu.cpuset_levels] if cpu else []
        levels += [each.levels for each in (cpu and cpu.cpu, hugetlb) if each]
        own = dict.fromkeys(each[0][1] for each in levels)
        above = dict.fromkeys(path for each in levels for _, path in each[1:])
        return WatchedDirectories(tuple(own), tuple(above))

    async def all_cpu(self) -> dict[str, CpuDirectories]:
        """Return where the CPU files of every container on the node are, by container ID."""
        hierarchy = self._cpuset_hierarchy()
        if hierarchy is None:
            return {}
        return {
            container_id: CpuDirectories(hierarchy.version, directory, hierarchy.directory, None)
            for container_id, directory in (await self._walk(hierarchy)).items()
        }

    async def containers_by_pod(self) -> dict[str, dict[str, str]]:
        """Return the cgroup directories of each pod's containers by ID, sandboxes included.

        The pods are normalised UIDs. The directories are those of the hierarchy of cpuset, or of
        cgroup v2.
        """
        hierarchy = self._cpuset_hierarchy()
        found: dict[str, dict[str, str]] = {}
        if hierarchy is None:
            return found
        for container_id, directory in (await self._walk(hierarchy)).items():
            pod_uid = hierarchy.pod_at(directory)
            if pod_uid is not None:
                found.setdefault(pod_uid, {})[container_id] = directory
        return found

    async def pods(self) -> dict[str, str]:
        """Return the cgroup directory of each pod that has one, by normalised UID.

        In the hierarchy of `containers_by_pod`.
        """
        hierarchy = self._cpuset_hierarchy()
        if hierarchy is None:
            return {}
        find = partial(pod_directories_below, hierarchy)
        return await self._reads.run("", find, hierarchy.directory)

    def _cpuset_hierarchy(self) -> Hierarchy | None:
        controller = next((c for c in ("cpuset", UNIFIED) if c in self._tree.hierarchies), None)
        return None if controller is None else self._tree.hierarchies[controller]

    async def _walk(self, hierarchy: Hierarchy) -> dict[str, str]:
        self.walks += 1
        return await self._reads.run("", partial(containers_below, hierarchy), hierarchy.directory)
