"""An environment is readable only by callers that the kernel itself would let read it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from netutil.agent.errors import PermissionDenied, Reason, ResourceExhausted, Unauthenticated
from netutil.agent.facts.environment import read_block
from netutil.agent.identity import ptrace
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.identity.ptrace import (
    CredentialsNotRestored,
    _kernel_compares_ids,
    read_as_caller,
    read_own,
)
from netutil.agent.parsers.process import ThreadCredentials

from tests.support.processes import become, pinned, process

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users"),
]

USER, OTHER = 12345, 12346
NOT_DUMPABLE = "import ctypes; ctypes.CDLL(None).prctl(4, 0)"  # PR_SET_DUMPABLE
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
IN_ITS_OWN_USER_NAMESPACE = """
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
libc.prctl(4, 1)
"""
AS_USER = become(USER, USER)
DUMPABLE = "ctypes.CDLL(None).prctl(4, 1)"
AS_ROOT_IN_GROUP = f"""
import ctypes, os
os.setgroups([]); os.setresgid({USER}, {USER}, {USER})
"""


def connected(process: PinnedProcess) -> Credentials:
    """Return what SO_PEERCRED would say if the process connected now."""
    status = process.status()
    return Credentials(process.pid, status.uids[1], status.gids[1])


def ask(caller: int, target: int) -> None:
    with pinned(caller) as asking, pinned(target) as asked:
        read_as_caller(asking, connected(asking), asked, read_block)


def assert_refused(caller: int, target: int) -> None:
    with pytest.raises(PermissionDenied) as refused:
        ask(caller, target)
    assert refused.value.reason is Reason.ENVIRONMENT_NOT_READABLE


def name_of(directory: int) -> str:
    with open("comm", opener=lambda name, flags: os.open(name, flags, dir_fd=directory)) as comm:
        return comm.read().strip()


def kernel_allows(target: int, script: str = "", before: Sequence[str] = ()) -> bool:
    """Return what the kernel itself says to a process that tries."""
    attempt = f"open('/proc/{target}/environ').close()"
    done = subprocess.run(
        [*before, sys.executable, "-I", "-c", f"{script}\n{attempt}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 or b"PermissionError" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_process_of_the_same_user_is_readable() -> None:
    with process(AS_USER) as caller, process(AS_USER) as target:
        ask(caller.pid, target.pid)
        assert kernel_allows(target.pid, AS_USER)


def test_root_reads_a_process_of_root_with_equal_capabilities() -> None:
    with process() as caller, process() as target:
        ask(caller.pid, target.pid)


@pytest.mark.parametrize(
    ("uid", "gid"), [(OTHER, USER), (USER, OTHER), (OTHER, OTHER)], ids=["uid", "gid", "both"]
)
def test_other_ids_are_refused(uid: int, gid: int) -> None:
    with process(AS_USER) as caller, process(become(uid, gid)) as target:
        assert_refused(caller.pid, target.pid)
        assert not kernel_allows(target.pid, AS_USER)


def test_another_saved_group_id_is_refused() -> None:
    with process(AS_USER) as caller, process(become(USER, USER, OTHER)) as target:
        assert_refused(caller.pid, target.pid)
        assert not kernel_allows(target.pid, AS_USER)


@pytest.mark.parametrize("ids", [(OTHER, USER, USER), (USER, USER, OTHER)], ids=["real", "saved"])
def test_another_real_or_saved_user_id_is_refused_on_either_side(
    ids: tuple[int, int, int],
) -> None:
    """The kernel compares the ids of the target only; the agent compares those of both."""
    mixed = AS_ROOT_IN_GROUP + f"os.setresuid{ids}; {DUMPABLE}"
    with process(AS_USER) as user, process(mixed) as other, process(mixed) as neighbour:
        assert_refused(user.pid, other.pid)
        assert_refused(other.pid, user.pid)
        assert not kernel_allows(neighbour.pid, AS_USER)


def test_the_agent_itself_is_not_readable_by_a_user() -> None:
    """The kernel lets every thread read its own process, whatever its ids are."""
    with process(AS_USER) as caller:
        assert_refused(caller.pid, os.getpid())


def test_the_agent_itself_is_readable_only_with_power() -> None:
    with process(before=WITHOUT_CAPABILITIES) as caller, process() as powerful:
        assert_refused(caller.pid, os.getpid())
        assert not kernel_allows(os.getpid(), before=WITHOUT_CAPABILITIES)
        ask(powerful.pid, os.getpid())


@pytest.mark.parametrize(
    ("ids", "capabilities", "expected"),
    [
        ((USER, USER, USER, OTHER, OTHER, OTHER), 0, True),
        ((USER, USER, USER, OTHER, OTHER, OTHER), 0xA80425FB, True),
        ((USER, USER, USER, OTHER, OTHER, OTHER), 0xA80425FB | 1 << 19, False),
        ((USER, USER, OTHER, OTHER, OTHER, OTHER), 0, False),
        ((OTHER, USER, USER, OTHER, OTHER, OTHER), 0, False),
        ((USER, USER, USER, OTHER, OTHER, USER), 0, False),
        ((USER, USER, USER, USER, OTHER, OTHER), 0, False),
    ],
)
def test_the_kernel_compares_ids_for_a_plain_caller(
    ids: tuple[int, int, int, int, int, int], capabilities: int, expected: bool
) -> None:
    asking = ThreadCredentials(ids, capabilities, has_ended=False)
    assert _kernel_compares_ids(asking, Credentials(1, USER, OTHER)) == expected


def test_a_caller_in_thousands_of_groups_is_read_like_any_other() -> None:
    in_groups = f"import os; os.setgroups(range({OTHER}, {OTHER} + 4000))"
    with process(in_groups) as caller, process() as target:
        assert len(Path(f"/proc/{caller.pid}/status").read_bytes()) > 16 * 1024
        ask(caller.pid, target.pid)


def test_root_is_not_readable_by_a_user() -> None:
    with process(AS_USER) as caller, process() as target:
        assert_refused(caller.pid, target.pid)


def test_a_user_is_not_readable_by_a_root_without_the_same_ids() -> None:
    with process() as caller, process(AS_USER) as target:
        assert_refused(caller.pid, target.pid)


def test_a_process_that_is_not_dumpable_is_refused() -> None:
    with process(AS_USER) as caller, process(AS_USER + NOT_DUMPABLE) as target:
        assert_refused(caller.pid, target.pid)
        assert not kernel_allows(target.pid, AS_USER)


def test_a_root_with_fewer_capabilities_does_not_read_more() -> None:
    with process(before=WITHOUT_CAPABILITIES) as caller, process() as target:
        assert_refused(caller.pid, target.pid)
        assert not kernel_allows(target.pid, before=WITHOUT_CAPABILITIES)


def test_a_user_reads_what_has_no_more_capabilities() -> None:
    as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    admin = (*as_user, "--inh-caps=+net_admin", "--ambient-caps=+net_admin")
    with process(before=admin) as one, process(before=admin) as two, process(before=as_user) as low:
        ask(one.pid, two.pid)
        ask(one.pid, low.pid)
        assert_refused(low.pid, one.pid)
        assert kernel_allows(two.pid, before=admin)
        assert not kernel_allows(one.pid, before=as_user)


def test_a_process_in_a_user_namespace_of_its_own_is_refused() -> None:
    """The kernel would let the namespace's owner in; the agent does not take on that power."""
    shut_in = AS_USER + IN_ITS_OWN_USER_NAMESPACE
    with process(AS_USER) as caller, process(shut_in) as target, process(shut_in) as neighbour:
        assert_refused(caller.pid, target.pid)
        assert_refused(target.pid, caller.pid)
        assert_refused(neighbour.pid, target.pid)


def test_errors_of_a_read_are_not_for_another_user_namespace() -> None:
    """They say something of the target, such as the size of its environment."""

    def too_large(_: int) -> None:
        raise ResourceExhausted(Reason.ENVIRONMENT_TOO_LARGE, "It is too large.", read="environ")

    shut_in = AS_USER + IN_ITS_OWN_USER_NAMESPACE
    with process(AS_USER) as target, pinned(target.pid) as asked:
        for script, error in ((shut_in, PermissionDenied), (AS_USER, ResourceExhausted)):
            with (
                process(script) as caller,
                pinned(caller.pid) as asking,
                pytest.raises(error),
            ):
                read_as_caller(asking, connected(asking), asked, too_large)


def test_errors_say_nothing_of_another_user_namespace() -> None:
    def too_large(_: int) -> None:
        raise ResourceExhausted(Reason.ENVIRONMENT_TOO_LARGE, "It is too large.", read="environ")

    shut_in = AS_USER + IN_ITS_OWN_USER_NAMESPACE
    with (
        process(AS_USER) as caller,
        process(shut_in) as target,
        pinned(caller.pid) as asking,
        pinned(target.pid) as asked,
        pytest.raises(PermissionDenied),
    ):
        read_as_caller(asking, connected(asking), asked, too_large)


def test_a_caller_with_the_powers_of_the_agent_is_read_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A privileged container: there is nothing to take on, and nothing to take back."""
    changes: list[object] = []
    set_capabilities = ptrace._set_capabilities

    def changed(wanted: tuple[int, int, int, int, int, int]) -> None:
        changes.append(wanted)
        set_capabilities(wanted)

    monkeypatch.setattr(ptrace, "_set_capabilities", changed)
    with process() as caller, process() as target:
        ask(caller.pid, target.pid)
    assert not changes
    with process(before=WITHOUT_CAPABILITIES) as caller, process() as target:
        assert_refused(caller.pid, target.pid)
    assert len(changes) == 2
    with process(AS_USER) as caller, process(AS_USER) as target:
        ask(caller.pid, target.pid)
    assert len(changes) == 4


def test_no_caller_can_ask_for_a_process_that_ended() -> None:
    with process() as target, pinned(os.getpid()) as asking, pinned(target.pid) as asked:
        target.kill()
        target.wait()
        with pytest.raises(Unauthenticated):
            read_as_caller(asking, connected(asking), asked, read_block)


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_target_that_executes_before_the_read_is_not_read(
    anybodys: Path,
) -> None:
    """The kernel's consent was for the program before: a look and then a read would be too late."""
    program = anybodys / "unreadable"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4711)
    ends, end = os.pipe()
    become_it = (
        f"os.read({ends}, 1); os.execve({str(program)!r}, ['cat'], {{'PASSWORD': 'secret'}})"
    )

    def read(directory: int) -> object:
        os.write(end, b".")
        deadline = time.monotonic() + 20
        while name_of(directory) != "unreadable":
            assert time.monotonic() < deadline
            os.sched_yield()
        return read_block(directory)

    script = f"{AS_USER}\nprint(flush=True)\n{become_it}"
    with (
        process(AS_USER) as caller,
        subprocess.Popen(
            [sys.executable, "-I", "-c", script],
            pass_fds=[ends],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as target,
    ):
        assert target.stdout is not None
        target.stdout.readline()
        with (
            pinned(caller.pid) as asking,
            pinned(target.pid) as asked,
            pytest.raises(PermissionDenied),
        ):
            read_as_caller(asking, connected(asking), asked, read)
        target.kill()
    os.close(ends)
    os.close(end)


def test_ids_that_are_not_those_of_the_connection_are_refused() -> None:
    with (
        process(AS_USER) as caller,
        process(AS_USER) as target,
        pinned(caller.pid) as asking,
        pinned(target.pid) as asked,
    ):
        read_own(asking, Credentials(caller.pid, USER, USER), read_block)
        for uid, gid in ((0, 0), (OTHER, USER), (USER, OTHER)):
            credentials = Credentials(caller.pid, uid, gid)
            with pytest.raises(PermissionDenied) as refused:
                read_own(asking, credentials, read_block)
            assert refused.value.reason is Reason.ENVIRONMENT_NOT_READABLE
            with pytest.raises(PermissionDenied) as refused:
                read_as_caller(asking, credentials, asked, read_block)
            assert refused.value.reason is Reason.ENVIRONMENT_NOT_READABLE


def test_a_check_leaves_the_agents_credentials_and_threads_alone() -> None:
    before = Path("/proc/thread-self/status").read_text()
    threads = set(threading.enumerate())
    with process(AS_USER) as caller, process(AS_USER) as target:
        for _ in range(100):
            ask(caller.pid, target.pid)
    after = Path("/proc/thread-self/status").read_text()
    for key in ("Uid:", "Gid:", "CapEff:", "CapPrm:"):
        (was,) = [line for line in before.splitlines() if line.startswith(key)]
        assert was in after
    assert set(threading.enumerate()) <= threads  # one of another test may have ended since


def test_a_thread_that_keeps_foreign_credentials_reports_it() -> None:
    """It has lost capabilities for good during the read: what the kernel refuses is not hidden."""
    raised: list[BaseException] = []

    def lose(directory: int) -> None:
        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0

    with (
        process(AS_USER) as caller,
        process(AS_USER) as target,
        pinned(caller.pid) as asking,
        pinned(target.pid) as asked,
    ):
        credentials = connected(asking)

        def work() -> None:
            try:
                read_as_caller(asking, credentials, asked, lose)
            except CredentialsNotRestored as error:
                raised.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(raised) == 1
