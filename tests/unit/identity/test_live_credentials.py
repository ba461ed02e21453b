"""The credentials of a process are those of its status file, however they are asked for."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence

import pytest
from netutil.agent.errors import Unauthenticated
from netutil.agent.identity import live_credentials
from netutil.agent.identity.live_credentials import credentials_now, first_thread_ids
from netutil.agent.identity.process import thread_credentials
from netutil.agent.parsers.process import Ids, ThreadCredentials

from tests.support.processes import (
    END_OF_FIRST_THREAD,
    become,
    open_descriptors,
    pinned,
    process,
    wait_for_state,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users"),
]

USER, OTHER = 12345, 12346
SIX_IDS = f"""
import ctypes, os
os.setresgid({USER}, {USER} + 1, {USER} + 2); os.setresuid({USER} + 3, {USER} + 4, {USER} + 5)
ctypes.CDLL(None).prctl(4, 1)
"""
OTHER_IN_THREAD = f"""
import ctypes, sys, threading
libc = ctypes.CDLL(None)
def work():
    libc.syscall(119, {OTHER}, {OTHER}, {OTHER})  # setresgid(2) of this thread alone
    libc.syscall(117, {OTHER}, {OTHER}, {OTHER})
    libc.prctl(4, 1)
    print(flush=True)
    sys.stdin.read()
threading.Thread(target=work).start()
libc.pthread_exit(None)
"""


@pytest.fixture(params=["pidfd", "file"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports ids by pidfd, or does not."""
    if request.param == "file":
        monkeypatch.setattr(live_credentials, "_has_pidfd_info", lambda: False)
    elif not live_credentials._has_pidfd_info():
        pytest.skip("needs PIDFD_GET_INFO, Linux 6.13 or later")


needs_pidfd_info = pytest.mark.skipif(
    not live_credentials._has_pidfd_info(), reason="needs PIDFD_GET_INFO, Linux 6.13 or later"
)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize(
    ("script", "before"),
    [
        ("", ()),
        (become(USER, OTHER), ()),
        (SIX_IDS, ()),
        ("", ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all")),
        ("", ("setpriv", "--bounding-set=-all", "--inh-caps=-all")),
    ],
    ids=["root", "user", "six ids", "fewer capabilities", "no capabilities"],
)
def test_credentials_are_those_of_the_status_file(script: str, before: Sequence[str]) -> None:
    with process(script, before=before) as started, pinned(started.pid) as pin:
        expected = thread_credentials(pin.directory())
        assert credentials_now(pin) == expected
        assert first_thread_ids(pin) in (expected.ids, None)


@needs_pidfd_info
def test_the_file_is_not_read_while_the_first_thread_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the file was read")

    monkeypatch.setattr(live_credentials, "thread_credentials", refuse)
    with process() as started, pinned(started.pid) as pin:
        assert credentials_now(pin).ids == (0, 0, 0, 0, 0, 0)


@pytest.mark.usefixtures("_kernel")
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names system calls by number")
def test_another_thread_counts_where_the_first_has_ended() -> None:
    with process(OTHER_IN_THREAD) as started, pinned(started.pid) as pin:
        wait_for_state(started.pid, "Z")
        assert credentials_now(pin).ids == (OTHER,) * 6
        assert first_thread_ids(pin) in ((0,) * 6, None)


@pytest.mark.usefixtures("_kernel")
def test_a_process_that_has_ended_has_no_credentials() -> None:
    with process(END_OF_FIRST_THREAD) as started, pinned(started.pid) as pin:
        started.kill()
        os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(Unauthenticated):
            credentials_now(pin)
        started.wait()
        with pytest.raises(Unauthenticated):
            credentials_now(pin)
        assert first_thread_ids(pin) is None


def test_ids_that_change_meanwhile_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the ids of a user are taken together with the capabilities of a setuid program."""
    reported: list[Ids] = [(USER, USER, USER, USER, USER, USER), (USER, 0, 0, USER, USER, USER)]
    monkeypatch.setattr(live_credentials, "first_thread_ids", lambda _: reported.pop(0))
    with process() as started, pinned(started.pid) as pin:
        assert credentials_now(pin).ids == (0, 0, 0, 0, 0, 0)
    assert not reported


def test_capabilities_of_a_user_are_read_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setuid program that drops its ids at once has the ids of before and after it."""
    monkeypatch.setattr(live_credentials, "first_thread_ids", lambda _: (USER,) * 6)
    monkeypatch.setattr(live_credentials, "_effective_capabilities", lambda _: 0x1FFFFFFFFFF)
    with process(become(USER, USER)) as started, pinned(started.pid) as pin:
        found = credentials_now(pin)
    assert found.ids == (USER,) * 6 and not found.effective_capabilities


AS_USER_WITH_POWERS = (
    "setpriv",
    *(f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"),
)
NET_ADMIN_AND_RAW = 1 << 12 | 1 << 13


@pytest.mark.usefixtures("_kernel")
def test_a_user_may_have_capabilities() -> None:
    with process(before=AS_USER_WITH_POWERS) as started, pinned(started.pid) as pin:
        found = credentials_now(pin)
    assert found.ids == (USER,) * 6 and found.effective_capabilities == NET_ADMIN_AND_RAW


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("starts", [(1, 2), (None, None), (None, 1), (1, None)])
def test_capabilities_of_two_programs_do_not_count(
    starts: tuple[int | None, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(starts)
    monkeypatch.setattr(live_credentials, "_environment_start", lambda _: found.pop(0))
    with process(before=AS_USER_WITH_POWERS) as started, pinned(started.pid) as pin:
        assert credentials_now(pin).effective_capabilities == 0


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("other", [(USER,) * 5 + (OTHER,), (USER, 0, 0, USER, USER, USER)])
def test_capabilities_beside_other_ids_do_not_count(
    other: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = (USER,) * 6
    monkeypatch.setattr(live_credentials, "_by_pidfd", lambda _: with_all(user))
    reported = [with_all(user), with_all(other)]
    monkeypatch.setattr(live_credentials, "thread_credentials", lambda _: reported.pop(0))
    with process() as started, pinned(started.pid) as pin:
        assert credentials_now(pin).effective_capabilities == 0
    assert not reported


def test_a_program_that_can_be_root_again_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = with_all((USER, USER, 0, USER, USER, USER))
    monkeypatch.setattr(live_credentials, "_by_pidfd", lambda _: found)
    monkeypatch.setattr(live_credentials, "thread_credentials", lambda _: found)
    with process() as started, pinned(started.pid) as pin:
        assert credentials_now(pin).effective_capabilities == 0


def with_all(ids: Ids) -> ThreadCredentials:
    return ThreadCredentials(ids, 0x1FFFFFFFFFF, has_ended=False)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL, errno.EACCES])
def test_a_kernel_without_the_ioctl_is_detected(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = open_descriptors()
    assert not support(number, monkeypatch)
    assert open_descriptors() == before


def test_a_shortage_is_no_missing_ioctl(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="memory"):
        support(errno.ENOMEM, monkeypatch)


def support(number: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether the ioctl counts as supported on a kernel that answers with an error."""

    def ioctl(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return live_credentials._has_pidfd_info.__wrapped__()


def test_an_answer_without_credentials_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: bytes(64))
    assert not live_credentials._has_pidfd_info.__wrapped__()
    monkeypatch.setattr(live_credentials, "_has_pidfd_info", lambda: True)
    with process() as started, pinned(started.pid) as pin, pytest.raises(OSError, match="without"):
        first_thread_ids(pin)


class RefusingLibrary:
    """The C library where a security module refuses to report capabilities."""

    def __init__(self, number: int) -> None:
        self.number = number

    def capget(self, *_: object) -> int:
        ctypes.set_errno(self.number)
        return -1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_refused_capget_leaves_the_file(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with process() as started, pinned(started.pid) as pin:
        expected = thread_credentials(pin.directory())
        monkeypatch.setattr(live_credentials, "_LIBC", RefusingLibrary(number))
        assert credentials_now(pin) == expected


def test_a_failed_capget_is_an_error() -> None:
    assert live_credentials._effective_capabilities(os.getpid()) is not None
    assert live_credentials._effective_capabilities(2**22 + 1) is None
    with pytest.raises(OSError, match="capget"):
        live_credentials._effective_capabilities(-1)


def test_shared_pins_close_their_descriptors_together() -> None:
    with process() as started:
        before = open_descriptors()
        with pinned(started.pid) as pin:
            shares = [pin.share() for _ in range(3)]
            assert open_descriptors() == before + 2
        assert not pin.alive() and all(one.alive() for one in shares)
        with pytest.raises(Unauthenticated):
            pin.share()
        last = shares.pop()
        for one in shares:
            one.close()
            one.close()
        assert last.alive()
        assert open_descriptors() == before + 2
        last.close()
        assert open_descriptors() == before
