"""The program that runs a credential plugin within limits."""

from __future__ import annotations

import os

import pytest
from netutil.agent.pods.http import exec_limit


def test_a_plugin_that_always_writes_is_ended_in_time(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written = 65_536  # what a pipe holds: there is something to read all the time
    monkeypatch.setattr(exec_limit, "_CHUNK_BYTES", 1)
    command = ["/bin/sh", "-c", f"head -c {written} /dev/zero; exec sleep 60"]
    assert exec_limit.main(["0.1", str(10**6), *command]) == exec_limit.LIMIT_PASSED
    out, error = capfd.readouterr()
    assert "did not end within 0.1 s" in error
    assert len(out) < written


@pytest.mark.parametrize("status", [0, 3])
def test_a_group_is_ended_while_its_number_is_reserved(
    status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    waitable: list[bool] = []

    def killpg(group: int, number: int) -> None:
        del number
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        waitable.append(os.waitid(os.P_PID, group, options) is not None)

    monkeypatch.setattr(os, "killpg", killpg)
    command = ["5", "1000", "/bin/sh", "-c", f"echo here; exit {status}"]
    assert exec_limit.main(command) == status
    assert waitable == [True]
    assert capfd.readouterr().out == "here\n"
