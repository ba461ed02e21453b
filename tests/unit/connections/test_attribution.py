"""Work for a peer that has exited is charged to its pod, if the kernel reports its cgroup."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.connections import attribution
from netutil.agent.connections.attribution import CgroupKeys, KnownPeers, is_in_cgroup_v2
from netutil.agent.errors import Unauthenticated
from netutil.agent.identity.cgroup_id import peer_cgroup_id, process_cgroup_id
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import Credentials
from netutil.agent.parsers.cgroup import identify

PATH = f"/kubepods/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b/{'4c1f' * 16}"


@pytest.mark.parametrize(
    ("text", "is_in_v2"),
    [
        (f"0::{PATH}\n", True),
        (f"3:cpuset:{PATH}\n0::{PATH}\n", True),
        (f"3:cpuset:{PATH}\n0::/\n", False),
        (f"3:cpuset:{PATH}\n", False),
    ],
)
def test_only_of_a_pod_in_cgroup_v2_the_cgroup_is_learned(text: str, is_in_v2: bool) -> None:
    """Elsewhere all processes of a node are in one, and each would be taken for that pod's."""
    process: Any = None
    peer = Peer(Credentials(1, 0, 0), process, identify(text), "pod")
    assert is_in_cgroup_v2(peer) is is_in_v2


def exited_peer(path: Path) -> tuple[socket.socket, socket.socket]:
    """Return a listener and an accepted connection whose peer has exited, and was waited for."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    child = os.fork()
    if not child:
        socket.socket(socket.AF_UNIX).connect(str(path))
        os._exit(0)
    accepted, _ = listener.accept()
    os.waitpid(child, 0)
    return listener, accepted


def kernel_reports_cgroups_of_dead_peers() -> bool:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return release >= (6, 16)


def test_the_cgroup_of_a_peer_is_that_of_its_process(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    listener, accepted = exited_peer(tmp_path / "s")
    with ours, theirs, listener, accepted:
        living, dead = peer_cgroup_id(ours), peer_cgroup_id(accepted)
        if kernel_reports_cgroups_of_dead_peers():
            assert living is not None and dead == living
        else:
            assert dead in (None, living)


def test_a_pinned_process_has_the_cgroup_of_the_peer_that_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pin = pin_pid(os.getpid())
        assert process_cgroup_id(pin) == peer_cgroup_id(ours)
        pin.close()
        with pytest.raises(Unauthenticated):
            process_cgroup_id(pin)


def test_an_unconnected_socket_has_no_peer_cgroup() -> None:
    with socket.socket(socket.AF_UNIX) as alone:
        assert peer_cgroup_id(alone) is None


def test_a_cgroup_is_charged_to_its_only_pod_or_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {1: 7, 2: 7, 3: 8}
    for name in ("peer_cgroup_id", "process_cgroup_id"):
        monkeypatch.setattr(attribution, name, lambda one: ids.get(one.fileno()))

    class Peer:
        def __init__(self, number: int) -> None:
            self._number = number

        def fileno(self) -> int:
            return self._number

    keys = CgroupKeys()
    one, two, three, four = (Peer(number) for number in (1, 2, 3, 4))
    keys.learn(one, "a")  # type: ignore[arg-type]
    keys.learn(three, "b")  # type: ignore[arg-type]
    assert [keys.find(each) for each in (one, two, three, four)] == ["a", "a", "b", None]  # type: ignore[arg-type]
    keys.learn(two, "c")  # type: ignore[arg-type]
    keys.learn(two, "a")  # type: ignore[arg-type]
    assert [keys.find(each) for each in (one, three)] == [None, "b"]  # type: ignore[arg-type]
    for _ in range(2):
        for _ in range(27):  # four and a half minutes of sweeps
            keys.age()
        assert keys.find(three) == "b"  # type: ignore[arg-type]
    for _ in range(54):
        keys.age()
    assert len(keys) == 0


def test_a_pod_of_many_cgroups_takes_no_other_pods_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("peer_cgroup_id", "process_cgroup_id"):
        monkeypatch.setattr(attribution, name, lambda number: number)
    keys = CgroupKeys()
    keys.learn(1, "quiet")  # type: ignore[arg-type]
    for number in range(2, 20_000):
        keys.learn(number, "busy")  # type: ignore[arg-type]
    assert keys.find(1) == "quiet"  # type: ignore[arg-type]
    assert len(keys) <= 129


def test_the_processes_of_one_pod_do_not_evict_those_of_others() -> None:
    known = KnownPeers(are_pinned=True)
    known.recent[1] = "other"
    for pid in range(2, 2 + 2 * attribution._MAX_PROCESSES):
        known.recent[pid] = "pod"
    assert known.recent.get(1) == "other"
    assert len(known.recent) <= 1 + 2 * attribution._MAX_PROCESSES_OF_POD
    # Else its connections would be identified before those of other pods that came later.
    assert known.recent.get(pid) == "pod"
