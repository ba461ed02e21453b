"""A process whose first thread has ended is read through a thread that runs, and never mistaken."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.errors import Reason, Unauthenticated
from netutil.agent.facts.links import network_namespace
from netutil.agent.identity import process as module
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.namespaces import find_process, shares_pid_namespace
from netutil.agent.identity.peer import identify_process
from netutil.agent.identity.pidfd import (
    PinPeer,
    peer_credentials,
    pin_by_peer_pidfd,
    pin_by_start_time,
)

from tests.support.lab import Lab, LabContainer, first_thread
from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.processes import READY, open_descriptors, pinned, wait_for_state
from tests.unit.identity.test_pinning import needs_peer_pidfd

RUNNER = first_thread.__file__
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")
needs_version_1 = pytest.mark.skipif(
    all(one.version != 1 for one in find_hierarchies()), reason="needs cgroup v1"
)


@contextmanager
def without_first_thread(
    script: str, folder: Path, container: LabContainer | None = None
) -> Iterator[int]:
    """The host pid of a process that ran a script in its second thread, and waits there."""
    program = folder / "program.py"
    program.write_text(f"import ctypes, os, threading, time\n{script}\n{READY}")
    argv = [sys.executable, RUNNER, str(program)]
    start = subprocess.Popen if container is None else container.spawn
    with start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"\n"
        pid = started.pid if container is None else started.host_pid  # type: ignore[attr-defined]
        wait_for_state(pid, "Z")
        yield pid
        started.kill()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def app(lab: Lab) -> LabContainer:
    return lab.pod("own").container("app")


def tree_of(container: LabContainer) -> CgroupTree:
    """The host's tree for a kubelet whose cgroup root is the lab's."""
    return read_cgroup_tree("/", f"/{container.cgroup_path.split('/')[1]}")


def other_threads(pid: int) -> list[str]:
    return [one for one in os.listdir(f"/proc/{pid}/task") if one != str(pid)]


def test_its_pidfd_says_that_it_runs_until_its_last_thread_ends(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(READY)
    argv = [sys.executable, RUNNER, str(program)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None and started.stdin is not None
        started.stdout.readline()
        wait_for_state(started.pid, "Z")
        with pinned(started.pid) as ended:
            assert ended.alive()
            assert ended.cgroup_text()
            started.stdin.close()
            started.wait()
            assert not ended.alive()
            for read in (ended.cgroup_text, ended.status, ended.stat):
                with pytest.raises(Unauthenticated) as refused:
                    read()
                assert refused.value.reason is Reason.PEER_GONE


def test_its_cgroup_is_that_of_a_thread_that_runs(tmp_path: Path) -> None:
    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin:
        (thread,) = other_threads(pid)
        assert pin.cgroup_text() == Path(f"/proc/{pid}/task/{thread}/cgroup").read_text()


@pytest.mark.root
@needs_lab
def test_it_is_of_its_container(app: LabContainer, tmp_path: Path) -> None:
    with without_first_thread("", app.log.parent, app) as pid, pinned(pid) as pin:
        found = identify_process(pin, tree_of(app))
    assert (found.pod_uid, found.container_id) == (app.pod.uid.replace("-", ""), app.id)
    assert len(found.placements) == len(app.cgroups)  # in every hierarchy, not in one that kept it


@pytest.mark.root
@needs_lab
def test_it_is_found_by_its_number_inside_and_finds_others(app: LabContainer) -> None:
    def found(caller: int, number: int) -> int:
        with pinned(caller) as pin:
            other = find_process(pin, number, processes_below(str(app.cgroups[0].parent)))
        other.close()
        return other.pid

    with without_first_thread("", app.log.parent, app) as pid:
        assert found(app.pid, inside_pid(pid)) == pid
        assert found(pid, inside_pid(pid)) == pid
        assert found(pid, 1) == app.pid
        thread = int(other_threads(pid)[0])
        with pinned(pid) as pin, pinned(app.pid) as init:
            assert pin.status().namespace_pids == (pid, inside_pid(pid))
            assert thread not in pin.status().namespace_pids
            assert shares_pid_namespace(pin, init)


@pytest.mark.root
@needs_root
def test_its_ids_are_those_of_a_thread_that_runs(tmp_path: Path) -> None:
    with without_first_thread("os.setgid(7); os.setuid(12345)", tmp_path) as pid:
        assert "Uid:\t0\t0\t0\t0" in Path(f"/proc/{pid}/status").read_text()
        with pinned(pid) as pin:
            status = pin.status()
    assert (status.uids[1], status.gids[1], status.has_ended) == (12345, 7, False)


@pytest.mark.root
@needs_root
def test_its_network_namespace_is_that_of_a_thread_that_runs(tmp_path: Path) -> None:
    with without_first_thread("assert ctypes.CDLL(None).unshare(0x40000000) == 0", tmp_path) as pid:
        (thread,) = other_threads(pid)
        expected = os.stat(f"/proc/{pid}/task/{thread}/ns/net")
        with pinned(pid) as pin:
            found = pin.through_running_thread(network_namespace)
        assert found == (expected.st_dev, expected.st_ino)
        assert found[1] != os.stat("/proc/self/ns/net").st_ino


@pytest.mark.parametrize(
    "pin", [pytest.param(pin_by_peer_pidfd, marks=needs_peer_pidfd), pin_by_start_time]
)
def test_its_connection_is_its_own(pin: PinPeer, tmp_path: Path) -> None:
    """Also of a thread that started long after the process."""
    path = str(tmp_path / "sock")
    script = (
        "import socket\ns = socket.socket(socket.AF_UNIX)\ntime.sleep(0.1)\n"
        f"t = threading.Thread(target=s.connect, args=({path!r},)); t.start(); t.join()"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with without_first_thread(script, tmp_path) as pid:
            connection, _ = listener.accept()
            with connection:
                found = pin(connection, peer_credentials(connection).pid)
            assert found.pid == pid
            assert found.status().namespace_pids[0] == pid
            found.close()


def test_a_program_executed_by_a_thread_is_the_same_process(tmp_path: Path) -> None:
    """execve(2): the thread that calls it takes the number of the first one, which has ended."""
    go = tmp_path / "go"
    os.mkfifo(go)
    then = f"threading.Thread(target=lambda: (open({str(go)!r}).read(), os.execvp('cat', ['cat'])))"
    with without_first_thread(f"{then}.start()", tmp_path) as pid, pinned(pid) as pin:
        before = pin.status().namespace_pids
        go.write_text("now")
        wait_for_state(pid, "S")
        assert Path(f"/proc/{pid}/comm").read_text() == "cat\n"
        assert pin.alive()
        assert pin.status().namespace_pids == before
        assert pin.cgroup_text() == Path(f"/proc/{pid}/cgroup").read_text()
        assert pin.through_running_thread(lambda thread: thread) == pin.directory()


def test_threads_that_come_and_go_do_not_hide_one_that_stays(tmp_path: Path) -> None:
    churn = (
        "def churn():\n"
        "  while True:\n"
        "    t = threading.Thread(target=str); t.start(); t.join()\n"
        "for _ in range(3): threading.Thread(target=churn, daemon=True).start()"
    )
    with without_first_thread(churn, tmp_path) as pid, pinned(pid) as pin:
        before = open_descriptors()
        for _ in range(300):
            assert pin.status().namespace_pids[0] == pid
            assert pin.cgroup_text()
        assert open_descriptors() == before


def test_more_threads_that_have_ended_than_are_tried_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_THREADS_TRIED", 1)  # the first one is listed first
    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin:
        before = open_descriptors()
        with pytest.raises(Unauthenticated) as refused:
            pin.status()
        assert open_descriptors() == before
    assert refused.value.reason is Reason.PEER_NOT_PINNED
    assert refused.value.read == f"/proc/{pid}/task"


def test_a_process_that_ends_during_the_thread_list_has_exited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = module._open

    def ends(directory: int, name: str, flags: int = 0) -> int:
        if name == "task":
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return opened(directory, name, flags)

    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin:
        monkeypatch.setattr(module, "_open", ends)
        with pytest.raises(Unauthenticated) as refused:
            pin.status()
    assert refused.value.reason is Reason.PEER_GONE


def test_a_file_that_no_thread_has_does_not_mean_an_exit(tmp_path: Path) -> None:
    def read(thread: int) -> os.stat_result:
        return os.stat("no such file", dir_fd=thread)

    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin, pinned(os.getpid()) as own:
        for one in (pin, own):
            with pytest.raises(FileNotFoundError):
                one.through_running_thread(read)


@pytest.mark.root
def test_a_running_thread_is_found_without_a_read_of_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin:
        (other,) = other_threads(pid)
        names = opened_by(lambda: pin.through_running_thread(network_namespace), monkeypatch)
    assert names == ["task", str(pid), other]


def opened_by(read: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that a reading opens."""
    names: list[str] = []
    plain = os.open

    def opening(name: str, flags: int, **options: int) -> int:
        names.append(name)
        return plain(name, flags, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "open", opening)  # type: ignore[attr-defined]
        read()
    return names


@pytest.mark.root
@needs_lab
@needs_version_1
def test_a_running_first_thread_costs_no_other_read_on_v1(
    app: LabContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pinned(app.pid) as pin:
        assert opened_by(pin.cgroup_text, monkeypatch) == ["cgroup"]
        assert opened_by(pin.status, monkeypatch) == ["status"]


VERSION_2 = "0::/kubepods.slice/kubepods-pod{uid}.slice/cri-containerd-{id}.scope\n"


@contextmanager
def cgroup_files(monkeypatch: pytest.MonkeyPatch, first: str, others: str) -> Iterator[None]:
    """Let the kernel say this of the cgroup of a first thread, and that of all others."""
    plain = module.read_file

    def reading(directory: int, name: str) -> bytes:
        if name != "cgroup":
            return plain(directory, name)
        path = os.readlink(f"/proc/self/fd/{directory}")
        return (others if "/task/" in path else first).encode()

    with monkeypatch.context() as patched:
        patched.setattr(module, "read_file", reading)
        yield


@pytest.mark.parametrize(
    ("first", "others"),
    [
        pytest.param("0::/old\n", "0::/new\n", id="v2, where it keeps its last path"),
        pytest.param("0::/old (deleted)\n", "0::/new\n", id="v2, whose directory was removed"),
        pytest.param("2:cpu:/\n1:name=systemd:/\n", "2:cpu:/a\n1:name=systemd:/a\n", id="v1"),
        pytest.param("2:cpu:/\n0::/old\n", "2:cpu:/a\n0::/new\n", id="hybrid"),
    ],
)
def test_the_kernels_word_on_a_first_thread_counts_while_it_runs(
    first: str, others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_first_thread("", tmp_path) as pid, pinned(pid) as pin, pinned(os.getpid()) as own:
        with cgroup_files(monkeypatch, first, others):
            assert pin.cgroup_text() == others
            assert own.cgroup_text() == first
        with cgroup_files(monkeypatch, first, first):
            assert pin.cgroup_text() == first


@pytest.mark.root
@needs_lab
@needs_version_1
def test_threads_in_own_cgroups_belong_to_their_container(app: LabContainer) -> None:
    """On cgroup v1 each thread may stand elsewhere: within what the container owns."""
    below = [directory / "kubepods" / f"pod{'0' * 32}" / ("f" * 64) for directory in app.cgroups]
    tree = tree_of(app)
    with without_first_thread("", app.log.parent, app) as pid:
        (thread,) = other_threads(pid)
        (file,) = (one for one in below if (one.parents[2] / "freezer.state").exists())
        file.mkdir(parents=True)
        try:
            (file / "tasks").write_text(thread)
            with pinned(pid) as pin:
                assert f"pod{'0' * 32}" in pin.cgroup_text()
                found = identify_process(pin, tree)
            assert found.container_id == app.id
        finally:
            (app.cgroups[below.index(file)] / "tasks").write_text(thread)
            for folder in (file, file.parent, file.parent.parent):
                folder.rmdir()
