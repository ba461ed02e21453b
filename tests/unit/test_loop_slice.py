"""The slice of CPU time of a thread."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import threading
from collections.abc import Callable
from functools import partial

import pytest
from netutil.agent import loop_slice
from netutil.agent.loop_slice import SLICE_NANOSECONDS, shorten_slice

_GETATTR = {"x86_64": 315, "aarch64": 275}
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
_OF_ITS_OWN = "the thread has a scheduling policy or a negative nice value of its own"


def attributes() -> tuple[int, int, int]:
    """The calling thread's flags, nice value and slice, as sched_getattr(2) has them."""
    found = ctypes.create_string_buffer(_SCHED_ATTR.size)
    number = _GETATTR[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, 0, found, _SCHED_ATTR.size, 0) == 0
    _, _, flags, nice, _, runtime, _, _ = _SCHED_ATTR.unpack(found.raw)
    return flags, nice, runtime


def in_a_thread(*calls: Callable[[], object]) -> list[object]:
    """What each call returns in one thread of its own, whose settings end with it."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(call() for call in calls))
    thread.start()
    thread.join()
    return found


def test_a_thread_gets_the_slice_and_keeps_its_nice_value() -> None:
    if tuple(map(int, platform.release().split(".")[:2])) < (6, 12):
        pytest.skip("Linux before 6.12 keeps no slice")
    be_nice = partial(os.setpriority, os.PRIO_PROCESS, 0, 3)
    assert in_a_thread(be_nice, shorten_slice, attributes) == [None, "", (1, 3, SLICE_NANOSECONDS)]


def test_a_thread_that_it_starts_has_the_usual_slice() -> None:
    before, _, started = in_a_thread(attributes, shorten_slice, lambda: in_a_thread(attributes)[0])
    assert started == before


def test_a_policy_of_its_own_is_left_alone() -> None:
    def be_a_batch_job() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    _, why, policy = in_a_thread(be_a_batch_job, shorten_slice, lambda: os.sched_getscheduler(0))
    assert (why, policy) == (_OF_ITS_OWN, os.SCHED_BATCH)


@pytest.mark.root
def test_a_negative_nice_value_is_left_alone() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: a nice value below 0")
    favour = partial(os.setpriority, os.PRIO_PROCESS, 0, -5)
    before, _, why, after = in_a_thread(attributes, favour, shorten_slice, attributes)
    assert why == _OF_ITS_OWN
    assert isinstance(before, tuple) and after == (before[0], -5, before[2])


@pytest.mark.parametrize("name", ["sched_getscheduler", "getpriority"])
def test_a_call_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, name, refuse)
    (why,) = in_a_thread(shorten_slice)
    assert why == "sched_getscheduler(2), getpriority(2): Function not implemented"


def test_an_unknown_machine_keeps_its_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    assert in_a_thread(shorten_slice) == ["unknown machine s390x"]


def test_a_refused_call_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_slice, "_SYSTEM_CALLS", {platform.machine(): -1})
    assert in_a_thread(shorten_slice) == ["sched_setattr(2): Function not implemented"]
