"""A shortage of descriptors or memory is an error of its own, never one of the facts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import QuotaExceeded, Reason, resource_exhausted
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.cpu import CpuDirectories, read_cpu
from netutil.agent.facts.links import read_links
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.namespaces import find_process
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.messages.status import code_of, trailing_metadata

from tests.support.processes import open_descriptors

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", SHORTAGES)
async def test_a_read_that_fails_for_a_shortage_may_be_retried(
    number: int,
) -> None:
    with pytest.raises(QuotaExceeded) as caught:
        await ReadPool().run("pod", failing(number), "/sys/bus/pci")
    error = caught.value
    assert error.reason is Reason.AGENT_OUT_OF_RESOURCES
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(error).startswith("/sys/bus/pci could not be read now: ")
    assert str(error).count(". ") == 0 and str(error).endswith(".")
    assert error.advice.startswith("Ask again in a moment.")
    assert b"RetryInfo" in trailing_metadata(error)[0][1]


async def test_other_failures_of_a_read_stay_what_they_are() -> None:
    with pytest.raises(PermissionError):
        await ReadPool().run("pod", failing(errno.EACCES), "/sys/bus/pci")
    assert resource_exhausted(OSError(errno.EIO, "input/output error"), "a file") is None


@pytest.mark.parametrize("number", SHORTAGES)
@pytest.mark.parametrize("call", ["pidfd_open", "open", "dup"])
def test_a_shortage_is_not_reported_as_a_missing_process(
    number: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pin_pid(os.getpid())
    before = open_descriptors()
    hold = own.duplicate if call == "dup" else partial(pin_pid, os.getpid())
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        with pytest.raises(QuotaExceeded) as caught:
            hold()
    assert caught.value.reason is Reason.AGENT_OUT_OF_RESOURCES
    assert open_descriptors() == before
    own.close()


def test_a_shortage_while_pinning_is_no_missing_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = pin_pid(os.getpid())
    other = os.getppid()
    monkeypatch.setattr(os, "pidfd_open", failing(errno.EMFILE))
    with pytest.raises(QuotaExceeded):
        find_process(own, other, [other])
    own.close()


@pytest.mark.parametrize("number", SHORTAGES)
@pytest.mark.parametrize("call", ["scandir", "read_text"])
def test_processes_that_cannot_be_looked_for_are_not_none(
    number: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert list(processes_below(str(tmp_path))) == [1]
    monkeypatch.setattr(os if call == "scandir" else Path, call, failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        list(processes_below(str(tmp_path)))


@pytest.mark.parametrize("number", SHORTAGES)
def test_a_shortage_does_not_call_a_cgroup_file_unusable(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tmp_path)
    monkeypatch.setattr(os, "open", failing(number))
    cpu = ControllerDirectory(1, directory, directory)
    with pytest.raises(OSError, match=os.strerror(number)):
        read_cpu(CpuDirectories(1, directory, directory, cpu))


@pytest.mark.parametrize("number", SHORTAGES)
def test_a_shortage_at_a_namespace_is_no_missing_capability(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", failing(number))
    with pytest.raises(QuotaExceeded) as caught:
        read_links(-1)
    assert caught.value.reason is Reason.AGENT_OUT_OF_RESOURCES
    assert "CAP_SYS_ADMIN" not in caught.value.advice
