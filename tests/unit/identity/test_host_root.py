"""Processes outside of pods that are proven to be the host's root, with real processes."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.errors import PermissionDenied, Unauthenticated
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import Hierarchy
from netutil.agent.identity.host_root import HOST_ROOT, is_host_root
from netutil.agent.identity.peer import identify_peer
from netutil.agent.identity.pidfd import choose_pin, pin_pid
from netutil.agent.identity.process import Credentials
from netutil.agent.parsers.pod_cgroups import pod_places

from tests.support.lab import Lab
from tests.support.lab.observing import needs_lab
from tests.support.processes import child_of, pinned, process

root = pytest.mark.root
POD = "/kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
CONTAINER = "a" * 64


@pytest.fixture(scope="module")
def tree() -> CgroupTree:
    return read_cgroup_tree("/")


def is_root(pid: int, tree: CgroupTree, uid: int = 0) -> bool:
    with pinned(pid) as pin:
        return is_host_root(Credentials(pid, uid, 0), pin, tree)


@contextmanager
def unshared(*options: str) -> Iterator[int]:
    """Yield the pid of a process of root's in other namespaces."""
    with process(before=("unshare", *options, "--fork")) as started:
        yield child_of(started.pid)


@root
@needs_lab
def test_a_process_of_root_outside_of_pods_is_the_hosts_root(tree: CgroupTree) -> None:
    with process() as started:
        assert is_root(started.pid, tree)


@root
@needs_lab
def test_another_user_is_not(tree: CgroupTree) -> None:
    with process() as started:
        assert not is_root(started.pid, tree, uid=1000)


@root
@needs_lab
@pytest.mark.parametrize("options", [("--user", "--map-root-user"), ("--pid",)])
def test_root_in_another_user_or_pid_namespace_is_not(
    options: Sequence[str], tree: CgroupTree
) -> None:
    with unshared(*options) as pid:
        assert not is_root(pid, tree)


@root
@needs_lab
def test_root_in_a_pod_is_not(tree: CgroupTree) -> None:
    with Lab() as lab:
        assert not is_root(lab.pod("web").container("app").pid, tree)


@root
@needs_lab
def test_a_process_that_has_exited_is_not(tree: CgroupTree) -> None:
    with process() as started:
        pin = pin_pid(started.pid)
    try:
        with pytest.raises(Unauthenticated):
            is_host_root(Credentials(pin.pid, 0, 0), pin, tree)
    finally:
        pin.close()


@root
@needs_lab
@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, ""), FileNotFoundError("ns/user")])
def test_a_process_of_unseen_namespaces_is_not_the_hosts_root(
    error: OSError, tree: CgroupTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> os.stat_result:
        raise error

    with process() as started, monkeypatch.context() as patched:
        patched.setattr(os, "stat", refused)
        assert not is_root(started.pid, tree)


@root
@needs_lab
def test_the_refusal_of_the_hosts_root_has_its_quota_key(tree: CgroupTree) -> None:
    pin, _ = choose_pin()
    left, right = socket.socketpair()
    with left, right, pytest.raises(PermissionDenied) as refused:
        identify_peer(left, pin, tree)
    assert refused.value.quota_key == HOST_ROOT


@root
@needs_lab
def test_the_refusal_of_another_user_has_none(tmp_path: Path, tree: CgroupTree) -> None:
    pin, _ = choose_pin()
    os.chmod(tmp_path, 0o755)  # noqa: S103 - below directories that are root's alone
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{tmp_path}")
        listener.listen()
        script = (
            "import os, socket\nos.setuid(12345)\nmine = socket.socket(socket.AF_UNIX)\n"
            f"mine.connect('\\0{tmp_path}')"
        )
        with process(script):
            accepted, _ = listener.accept()
            with accepted, pytest.raises(PermissionDenied) as refused:
                identify_peer(accepted, pin, tree)
    assert refused.value.quota_key is None


@pytest.mark.parametrize(
    ("own", "text", "shows_none"),
    [
        ("/", "0::/\n", True),
        ("/", "0::/system.slice/cron.service\n", True),
        ("/", f"0::{POD}/{CONTAINER}\n", False),
        ("/", f"0::{POD}/crio-conmon-{CONTAINER}.scope\n", False),
        ("/", f"0::/user.slice/docker-{CONTAINER}.scope\n", False),
        ("/", f"0::/a/{CONTAINER}/b\n", False),
        ("/", f"7:misc:/docker/{CONTAINER}\n0::/system.slice\n", False),
        ("/", "7:misc:/\n", False),
        ("/", "not a cgroup file\n", False),
        ("/", "", False),
        (f"/docker/{CONTAINER}/init.scope", f"0::/docker/{CONTAINER}/cron\n", True),
        (f"/docker/{CONTAINER}/init.scope", f"0::/docker/{CONTAINER}\n", True),
        (f"/docker/{CONTAINER}/init.scope", f"0::/docker/{CONTAINER}{POD}\n", False),
        (f"/docker/{CONTAINER}/init.scope", f"0::/docker/{'b' * 64}\n", False),
    ],
)
def test_a_pods_name_counts_unless_the_node_is_in_it(own: str, text: str, shows_none: bool) -> None:
    tree = CgroupTree({"": Hierarchy(2, "/sys/fs/cgroup", places=pod_places(own))})
    assert tree.shows_no_pod(text) is shows_none
