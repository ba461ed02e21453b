"""The owner of the directories decides, not the name of a cgroup, in real hierarchies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroup_walk import (
    containers_below,
    pod_directories_below,
    processes_below,
)
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.identity.peer import NO_POD, identify_process, pod_key_of

from tests.support.lab import Lab, LabContainer
from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.observing import needs_lab
from tests.support.processes import become, pinned, process

pytestmark = [pytest.mark.root, needs_lab]

USER = 12345
UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
ID = "c" * 64


@pytest.fixture
def container() -> Iterator[LabContainer]:
    with Lab() as lab:
        yield lab.pod("web", uid=UID).container("app")


@pytest.fixture
def tree(request: pytest.FixtureRequest) -> CgroupTree:
    """As an agent reads it whose kubelet's cgroup root is the lab's, or a delegated directory."""
    if "delegated" in request.fixturenames:
        return read_cgroup_tree("/", f"/{request.getfixturevalue('delegated').name}")
    if "container" not in request.fixturenames:
        return read_cgroup_tree("/")
    return read_cgroup_tree("/", root_of(request.getfixturevalue("container")))


def root_of(container: LabContainer) -> str:
    return f"/{container.cgroups[0].relative_to(find_hierarchies()[0].directory).parts[0]}"


def identified(pid: int, tree: CgroupTree) -> tuple[str | None, str | None]:
    with pinned(pid) as pin:
        found = identify_process(pin, tree)
    return found.pod_uid, found.container_id


def refusal(pid: int, tree: CgroupTree) -> PermissionDenied:
    with pytest.raises(PermissionDenied) as refused:
        identified(pid, tree)
    return refused.value


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A cgroup that an unprivileged user was given, as systemd gives user@.service."""
    top = find_hierarchies()[0].directory / f"netutil-delegated-{os.getpid()}"
    top.mkdir()
    try:
        for path in (top, top / "cgroup.procs", top / "tasks"):
            if path.exists():
                os.chown(path, USER, USER)
        yield top
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)


def test_a_users_own_cgroup_named_like_a_pod_is_refused(delegated: Path, tree: CgroupTree) -> None:
    inside = delegated / "kubepods" / f"pod{UID}" / ID
    # Into the delegated cgroup as root, as systemd does: on cgroup v2 a user moves
    # processes within it only.
    script = (
        f"open({str(delegated / 'cgroup.procs')!r}, 'w').write('0')\n"
        f"{become(USER, USER)}\nos.makedirs({str(inside)!r})\n"
        f"open({str(inside / 'cgroup.procs')!r}, 'w').write('0')"
    )
    with process(script) as forger:
        assert f"pod{UID}/{ID}" in Path(f"/proc/{forger.pid}/cgroup").read_text()
        refused = refusal(forger.pid, tree)
        assert refused.reason is Reason.CGROUP_NOT_OWNED_BY_ROOT
        assert f"uid {USER}" in refused.message
        forger.kill()
        forger.wait()


def test_a_container_of_the_kubelets_making_is_accepted(
    container: LabContainer, tree: CgroupTree
) -> None:
    assert identified(container.pid, tree) == (UID.replace("-", ""), container.id)


def test_a_user_namespaced_root_may_own_its_container_directory(
    container: LabContainer, tree: CgroupTree
) -> None:
    for directory in container.cgroups:
        os.chown(directory, 100_000, 100_000)
    assert identified(container.pid, tree)[1] == container.id


@pytest.mark.parametrize("levels_up", [1, 2, 3], ids=["the pod", "its QoS class", "kubepods"])
def test_each_directory_above_must_be_roots(
    levels_up: int, container: LabContainer, tree: CgroupTree
) -> None:
    directory = container.cgroups[0]
    for _ in range(levels_up):
        directory = directory.parent
    os.chown(directory, USER, -1)
    refused = refusal(container.pid, tree)
    assert refused.reason is Reason.CGROUP_NOT_OWNED_BY_ROOT
    assert refused.read == str(directory)


def test_a_name_deeper_down_is_the_workloads_own_doing(
    container: LabContainer, tree: CgroupTree
) -> None:
    victim = "99999999-8888-7777-6666-555555555555"
    deeper = container.cgroups[0] / f"pod{victim}" / ("d" * 64)
    deeper.mkdir(parents=True)
    (deeper / "cgroup.procs").write_text(str(container.pid))
    assert f"pod{victim}" in Path(f"/proc/{container.pid}/cgroup").read_text()
    assert identified(container.pid, tree)[1] == container.id


def test_a_host_process_is_no_pod(tree: CgroupTree) -> None:
    with process() as host:
        assert refusal(host.pid, tree).reason is Reason.NOT_A_POD


def test_ownership_is_unknown_without_the_hosts_cgroups(container: LabContainer) -> None:
    refused = refusal(container.pid, CgroupTree())
    assert refused.reason is Reason.CGROUP_NOT_OWNED_BY_ROOT
    assert "--host-root" in refused.advice


def test_a_directory_that_went_away_is_refused(tree: CgroupTree) -> None:
    controller, hierarchy = next(iter(tree.hierarchies.items()))
    alone = CgroupTree({controller: hierarchy})
    found = alone.identify(f"1:{controller}:/kubepods/pod{UID}/{ID}\n")
    with pytest.raises(PermissionDenied) as refused:
        alone.ensure_made_by_root(found)
    assert "cannot be checked" in refused.value.message


def test_an_agent_in_a_cgroup_namespace_finds_the_directories(
    container: LabContainer, tree: CgroupTree
) -> None:
    """Its /proc shows paths like /../../pod…, its mounts those of the host."""
    own = find_hierarchies()[0].directory / f"netutil-agent-{os.getpid()}"
    own.mkdir()
    script = (
        "import os, sys\n"
        "open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
        "import ctypes\n"
        "assert ctypes.CDLL(None, use_errno=True).unshare(0x02000000) == 0\n"  # CLONE_NEWCGROUP
        "from netutil.agent.identity.cgroup_mounts import read_cgroup_tree\n"
        "from netutil.agent.identity.peer import NO_POD, identify_process, pod_key_of\n"
        "from netutil.agent.identity.pidfd import pin_pid\n"
        "tree = read_cgroup_tree('/', sys.argv[3])\n"
        "pin = pin_pid(int(sys.argv[2]))\n"
        "found = identify_process(pin, tree)\n"
        "print(found.container_id)\n"
        "print('/../' in pin.cgroup_text())\n"
        "print(*sorted({tree.scope_directory(found)}))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(own), str(container.pid), root_of(container)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        own.rmdir()
    assert done.returncode == 0, done.stderr
    container_id, relative, scope = done.stdout.split()
    assert container_id == container.id
    assert relative == "True"
    with pinned(container.pid) as pin:
        assert scope == tree.scope_directory(identify_process(pin, tree))


def test_the_pods_processes_and_the_nodes_containers_are_listed(
    container: LabContainer, tree: CgroupTree
) -> None:
    second = container.pod.container("side")
    assert {container.pid, second.pid} <= set(processes_below(str(container.cgroups[0].parent)))
    name = next(name for name in ("cpuset", UNIFIED, *tree.hierarchies) if name in tree.hierarchies)
    found = containers_below(tree.hierarchies[name])
    assert {container.id, second.id} <= set(found)
    assert os.path.basename(found[container.id]) == container.id
    pods = pod_directories_below(tree.hierarchies[name])
    assert pods[UID.replace("-", "")] == os.path.dirname(found[container.id])


@pytest.mark.parametrize(
    ("hierarchy", "path", "directory"),
    [
        (Hierarchy(2, "/sys/fs/cgroup"), "/a/b", "/sys/fs/cgroup/a/b"),
        (Hierarchy(1, "/c", root="/docker/x"), "/docker/x/kubepods", "/c/kubepods"),
        (Hierarchy(1, "/c", root="/docker/x"), "/docker/x", "/c"),
        (Hierarchy(1, "/c", root="/docker/x"), "/docker/xy", None),
        (Hierarchy(1, "/c", root="/docker/x"), "/elsewhere", None),
        (Hierarchy(2, "/c", namespace="/kubepods/p/agent"), "/../../q/w", "/c/kubepods/q/w"),
        (Hierarchy(2, "/c", namespace="/kubepods/p/agent"), "/../../../../etc", None),
        (Hierarchy(2, "/c"), "/../../../etc", None),
        (Hierarchy(2, "/c"), "/a/../../a", None),
    ],
)
def test_a_path_never_leaves_its_hierarchy(
    hierarchy: Hierarchy, path: str, directory: str | None
) -> None:
    absolute = hierarchy.absolute(path)
    assert (None if absolute is None else hierarchy.resolve(absolute)) == directory


@pytest.mark.parametrize(
    "name",
    [
        "kubepods/pod{uid}/{id}",
        "kubepods/pod{uid}/crio-{id}",
        "kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{id}.scope",
        "kubepods-pod{uid}.slice:cri-containerd:{id}",
    ],
)
def test_cgroup_v2_shows_another_container_beside_the_process(name: str, tmp_path: Path) -> None:
    made = CgroupTree({UNIFIED: Hierarchy(2, str(tmp_path))})
    uid = UID.replace("-", "_") if "slice" in name else UID
    runs, empty, absent = "a" * 64, "b" * 64, "d" * 64
    for one, populated in ((ID, 1), (runs, 1), (empty, 0)):
        directory = tmp_path / name.format(uid=uid, id=one)
        directory.mkdir(parents=True)
        (directory / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    found = made.identify(f"0::/{name.format(uid=uid, id=ID)}/deeper\n")
    assert [made.runs_beside(found, one) for one in (runs, empty, absent)] == [True, False, False]
    assert made.runs_beside(found, "../../etc"), "no container's ID: it is undecided"


def test_a_process_in_the_pod_cgroup_keeps_containers_undecided() -> None:
    made = CgroupTree({UNIFIED: Hierarchy(2, "/nonexistent")})
    assert made.runs_beside(made.identify(f"0::/kubepods/pod{UID}\n"), ID)


def test_a_container_with_processes_is_not_an_empty_cgroup() -> None:
    with Lab() as lab:
        tree = read_cgroup_tree("/", f"/{lab.name}")
        web = lab.pod("web", uid=UID)
        app, side = web.container("app"), web.container("side")
        with pinned(app.pid) as pin:
            found = identify_process(pin, tree)
        assert tree.runs_beside(found, side.id)
        assert tree.runs_beside(found, web.sandbox_id)
        empty = [directory.parent / ID for directory in app.cgroups]
        for directory in empty:
            directory.mkdir()
        assert not tree.runs_beside(found, ID)
        side.kill()
        assert not tree.runs_beside(found, side.id)


def test_names_of_a_users_own_making_are_all_counted_as_one(
    delegated: Path, tree: CgroupTree
) -> None:
    keys = set()
    for letter in "abc":
        inside = delegated / (letter * 64)
        script = (
            f"open({str(delegated / 'cgroup.procs')!r}, 'w').write('0')\n"
            f"{become(USER, USER)}\nos.makedirs({str(inside)!r})\n"
            f"open({str(inside / 'cgroup.procs')!r}, 'w').write('0')"
        )
        with process(script) as user:
            with pinned(user.pid) as pin:
                cgroups = identify_process(pin, tree)
            assert cgroups.placements[0].containers[0][0] == letter * 64
            keys.add(pod_key_of(cgroups, tree))
            user.kill()
            user.wait()
    assert keys == {NO_POD}


def test_a_container_without_a_pod_uid_is_counted_by_its_id(tree: CgroupTree) -> None:
    hierarchy = find_hierarchies()[0]
    directory = hierarchy.directory / ("d" * 64)
    directory.mkdir()
    try:
        with process(f"open({str(directory / 'cgroup.procs')!r}, 'w').write('0')") as other:
            with pinned(other.pid) as pin:
                assert pod_key_of(identify_process(pin, tree), tree) == "d" * 64
            other.kill()
            other.wait()
    finally:
        directory.rmdir()


def test_a_directory_is_not_taken_for_an_earlier_namesake(
    delegated: Path,
) -> None:
    """Checked once, a directory is known by its number, so that its name may be anybody's."""
    pod = delegated / "kubepods" / f"pod{UID}"
    pod.mkdir(parents=True)
    hierarchy = next(h for h in find_hierarchies() if delegated.is_relative_to(h.directory))
    controller = UNIFIED if hierarchy.version == 2 else "cpu"
    tree = CgroupTree({controller: Hierarchy(hierarchy.version, str(delegated), "/")})
    found = tree.identify(f"1:{controller}:/kubepods/pod{UID}/{ID}\n")
    os.chown(delegated, 0, 0)
    tree.ensure_made_by_root(found)
    tree.ensure_made_by_root(found)
    pod.rmdir()
    os.chown(delegated, USER, USER)
    pod.mkdir()
    with pytest.raises(PermissionDenied):
        tree.ensure_made_by_root(found)


OUTER = "0e0e0e0e-0000-4000-8000-000000000000"
ASK = """
import ctypes, os, sys
own, pid, private = sys.argv[1:]
open(own + "/cgroup.procs", "w").write("0")
if private == "True":
    assert ctypes.CDLL(None, use_errno=True).unshare(0x02000000) == 0  # CLONE_NEWCGROUP
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroup_walk import containers_below
from netutil.agent.identity.peer import identify_process
from netutil.agent.identity.pidfd import pin_pid
tree = read_cgroup_tree("/")
found = identify_process(pin_pid(int(pid)), tree)
print(found.pod_uid, found.container_id)
print(any(found.container_id in containers_below(each) for each in tree.hierarchies.values()))
"""


@pytest.mark.parametrize(
    "private", [False, True], ids=["host's namespace", "a namespace of its own"]
)
@pytest.mark.parametrize("agent", ["pod", "service"])
def test_a_node_in_a_pod_names_its_own_pods(agent: str, private: bool) -> None:
    """kind in a pod: the agent and its callers run in the container of another node's pod."""
    top = find_hierarchies()[0].directory / f"netutil-nested-{os.getpid()}"
    node = top / "kubepods" / "burstable" / f"pod{OUTER}" / ("e" * 64) / "docker" / ("d" * 64)
    kubepods = node / "kubelet" / "kubepods"
    inner = kubepods / "besteffort" / f"pod{UID}" / ID
    own = {
        "pod": kubepods / "burstable" / "podaaaaaaaa-0000-4000-8000-000000000000" / ("a" * 64),
        "service": node / "system.slice" / "netutil-agent.service",
    }[agent]
    try:
        for directory in (inner, own):
            directory.mkdir(parents=True)
        with process(f"open({str(inner / 'cgroup.procs')!r}, 'w').write('0')") as caller:
            done = subprocess.run(
                [sys.executable, "-c", ASK, str(own), str(caller.pid), str(private)],
                capture_output=True,
                text=True,
                check=False,
            )
            caller.kill()
            caller.wait()
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [UID.replace("-", ""), ID, "True"]
