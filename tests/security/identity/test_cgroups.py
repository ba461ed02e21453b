"""Cgroups, mounts and roots that a workload made to look like another pod's."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.stage import Stage, stage
from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.observing import needs_lab
from tests.support.nodes.client_driver import (
    EVERYTHING,
    POD_CLIENT,
    Call,
    Outcomes,
    asked,
    assert_nothing_leaked,
    task,
)

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-identity-cgroups")]
QUESTIONS: tuple[Call, ...] = (("GetEnv", {}), ("GetPod", {}), ("GetAll", {}))
UNKNOWN = ("PERMISSION_DENIED", "UNKNOWN_TO_POD_LIST")
OUTSIDE = ("PERMISSION_DENIED", "OUTSIDE_KUBELET_CGROUPS")
DISAGREE = ("FAILED_PRECONDITION", "CGROUPS_DISAGREE")

MOVE = """
for directory in {directories!r}:
    os.makedirs(directory, exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        above = []
        at = directory
        while os.path.exists(f"{{at}}/{{name}}") and not open(f"{{at}}/{{name}}").read().strip():
            above.append(at)
            at = os.path.dirname(at)
        for each in reversed(above):
            open(f"{{each}}/{{name}}", "w").write(open(f"{{at}}/{{name}}").read())
    open(f"{{directory}}/cgroup.procs", "w").write("0")
assert {marker!r} in open("/proc/self/cgroup").read()
"""


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


def moving(below: list[Path], name: str) -> str:
    """The script of a process that makes cgroups and moves itself in."""
    return MOVE.format(directories=[str(top / name) for top in below], marker=name)


def shapes(on: Stage) -> dict[str, str]:
    uid, container_id = on.victim.pod.uid, on.victim.id
    slices = (
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid.replace('-', '_')}"
    )
    return {
        "cgroupfs": f"kubepods/burstable/pod{uid}/{container_id}",
        "systemd": f"{slices}.slice/cri-containerd-{container_id}.scope",
        "joined": f"{slices.rpartition('/')[2]}.slice:cri-containerd:{container_id}",
        "container alone": container_id,
        "deep": "/".join(["a"] * 30 + [f"pod{uid}", f"crio-{container_id}"]),
        "like lines": f"x:cpuset:/\v0::/pod{uid}\u2028/pod{uid}/{container_id}",
    }


@pytest.mark.parametrize(
    "shape", ["cgroupfs", "systemd", "joined", "container alone", "deep", "like lines"]
)
def test_a_cgroup_named_like_the_victims_changes_nothing(shape: str, on: Stage) -> None:
    before = moving(list(on.hostile.cgroups), shapes(on)[shape])
    got = asked(on.hostile, *QUESTIONS, before=before)
    env, pod, everything = got.calls
    assert env.answer["envs"] == {"WHO": "hostile"}
    assert pod.answer["name"] == everything.answer["pod"]["name"] == "hostile"
    assert_nothing_leaked(got)


def asked_from(on: Stage, path: str, marker: str) -> Outcomes:
    """Ask from a process of the host's root in cgroups that it made below the lab's."""
    tops = [hierarchy.directory / on.lab.name for hierarchy in find_hierarchies()]
    before = moving(tops, path)
    assert marker in path
    done = subprocess.run(
        [sys.executable, POD_CLIENT],
        input=task(QUESTIONS, before=before, socket=str(on.lab.socket)),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Outcomes.from_output(done.stdout)


ENGINES = {
    "Docker": f"docker/{secrets.token_hex(32)}",
    "Docker, systemd": f"system.slice/docker-{secrets.token_hex(32)}.scope",
    "Docker below kubepods": f"kubepods/burstable/{secrets.token_hex(32)}",
    "podman": f"machine.slice/libpod-{secrets.token_hex(32)}.scope/container",
    "podman, cgroupfs": f"libpod_parent/libpod-{secrets.token_hex(32)}",
    "podman, split": f"system.slice/app.service/libpod-payload-{secrets.token_hex(32)}",
    "nspawn": "machine.slice/systemd-nspawn@box.service/payload",
    "LXC": "lxc.payload.box",
    "libvirt": "machine.slice/machine-lxc-1-box.scope",
    "the next one": "next-engine",
}


@pytest.mark.parametrize("shape", ["cgroupfs", "systemd", "joined", "container alone"])
@pytest.mark.parametrize("engine", ENGINES)
def test_root_in_a_container_of_no_kubelet_is_no_pod_by_a_name(
    engine: str, shape: str, on: Stage
) -> None:
    """Its root is the host's, and so are the cgroups that it makes."""
    path = f"{ENGINES[engine]}/{shapes(on)[shape]}"
    got = asked_from(on, path, ENGINES[engine].partition("/")[0])
    assert got.refusals() <= {UNKNOWN, OUTSIDE}
    assert_nothing_leaked(got)


@pytest.mark.parametrize("shape", ["cgroupfs", "container alone"])
def test_a_pod_without_a_uid_in_its_cgroup_cannot_forge_one(shape: str, on: Stage) -> None:
    """CRI-O under some set-ups: its own container is known and is outside."""
    own = f"system.slice/crio-{on.hostile.id}.scope"
    got = asked_from(on, f"{own}/{shapes(on)[shape]}", "crio")
    _, pod, everything = got.calls
    assert pod.answer["name"] == everything.answer["pod"]["name"] == "hostile"
    assert_nothing_leaked(got)


def test_one_hierarchy_of_the_victims_is_not_enough(on: Stage) -> None:
    """By an open descriptor of its cgroup.procs, say. With all of them it would be its process."""
    file = str(on.victim.cgroups[0] / "cgroup.procs")
    enter = f"held = open({file!r}, 'w'); held.write('0'); held.flush()"
    if len(on.victim.cgroups) < 2:
        pytest.skip("needs two hierarchies (cgroup v1)")
    got = asked(on.hostile, *EVERYTHING, before=enter)
    assert got.refusals() == {DISAGREE}
    assert_nothing_leaked(got)


FORGED = """
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=None):
    done = libc.mount(source.encode(), target.encode(), kind and kind.encode(), flags, data)
    assert done == 0, (source, target, ctypes.get_errno())
def forge(proc):
    for pid in ("self", "1", str(os.getpid())):
        os.makedirs(f"{{proc}}/{{pid}}/ns", exist_ok=True)
        open(f"{{proc}}/{{pid}}/cgroup", "w").write({cgroup!r})
        open(f"{{proc}}/{{pid}}/mountinfo", "w").write({mountinfo!r})
        open(f"{{proc}}/{{pid}}/environ", "w").write("WHO=forged")
"""
OVER_PROC = """
mount("none", "/sys/fs/cgroup", "tmpfs", 0)
os.makedirs("/sys/fs/cgroup/kubepods/burstable/pod{uid}/{id}")
mount("none", "/proc", "tmpfs", 0)
forge("/proc")
assert "{uid}" in open("/proc/self/cgroup").read()
"""
OTHER_ROOT = """
mount("/", "/mnt", None, 4096 | 16384)
mount("none", "/mnt/sys/fs/cgroup", "tmpfs", 0)
os.makedirs("/mnt/sys/fs/cgroup/kubepods/burstable/pod{uid}/{id}")
mount("none", "/mnt/proc", "tmpfs", 0)
forge("/mnt/proc")
os.chroot("/mnt")
os.chdir("/")
assert "{uid}" in open("/proc/self/cgroup").read()
"""
NEW_MOUNT_NAMESPACE = """
assert libc.unshare(0x00020000) == 0
mount("none", "/", None, 16384 | 1 << 18)
"""


@pytest.mark.parametrize("trick", ["mounts over proc and cgroup", "another root", "both"])
def test_a_pods_mounts_and_root_change_nothing(trick: str, on: Stage) -> None:
    """In a mount namespace of its own: mountinfo, /proc/self/root, /proc and /sys/fs/cgroup."""
    uid, container_id = on.victim.pod.uid, on.victim.id
    path = f"/kubepods/burstable/pod{uid}/{container_id}"
    before = FORGED.format(
        cgroup=f"0::{path}\n",
        mountinfo=f"36 35 0:31 {path} /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
    )
    before += NEW_MOUNT_NAMESPACE
    if trick != "another root":
        before += OVER_PROC.format(uid=uid, id=container_id)
    if trick != "mounts over proc and cgroup":
        before += OTHER_ROOT.format(uid=uid, id=container_id)
    got = asked(on.hostile, *QUESTIONS, before=before)
    env, pod, everything = got.calls
    assert env.answer["envs"] == {"WHO": "hostile"}
    assert pod.answer["name"] == everything.answer["pod"]["name"] == "hostile"
    assert_nothing_leaked(got)
    assert os.path.ismount("/proc")
