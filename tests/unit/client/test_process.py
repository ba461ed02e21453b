"""The command `netutil` as a process of its own: pipes, terminals, signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from netutil.client.cli.exit_codes import Exit

from tests.support.answers.core import HOSTILE
from tests.support.fakes.agent import FakeAgent

COMMAND = str(Path(sys.executable).with_name("netutil"))
WIDTH = 72


def environment(agent: FakeAgent, **more: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    return {**inherited, "NETUTIL_SOCKET": agent.path, "TERM": "xterm", **more}


def piped(agent: FakeAgent, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [COMMAND, *arguments]
    env = environment(agent, **more)
    return subprocess.run(command, capture_output=True, env=env, timeout=60, check=False)


def on_terminal(agent: FakeAgent, *arguments: str, **more: str) -> str:
    """Return the output of the command on a terminal of 72 columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [COMMAND, *arguments],
        stdout=theirs,
        stderr=theirs,
        env=environment(agent, COLUMNS=str(WIDTH), **more),
    ) as running:
        os.close(theirs)
        written = bytearray()
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed (pty(7))
                break
            written += piece
    os.close(ours)
    assert running.returncode == 0
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("command", [[COMMAND], [sys.executable, "-m", "netutil.client"]])
def test_the_command_and_the_module_are_the_same(agent: FakeAgent, command: list[str]) -> None:
    done = subprocess.run(
        [*command, "cpu", "-o", "json"], capture_output=True, env=environment(agent), check=True
    )
    assert json.loads(done.stdout)["cpuset"] == "0-3,8"
    assert done.stderr == b""


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_pipe_gets_no_escape_sequence(agent: FakeAgent, output: str) -> None:
    done = piped(agent, "-o", output)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout and b"\x07" not in done.stdout


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_a_pipe_gets_the_bytes_of_a_variable(agent: FakeAgent, locale: str) -> None:
    agent.environment.envs["GREETING"] = "Grüße\n日本"
    done = piped(agent, "env", "GREETING", LC_ALL=locale, PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert done.stdout == "Grüße\n日本\n".encode()
    done = piped(agent, "env", "HOSTILE", LC_ALL=locale)
    assert done.stdout == f"{HOSTILE}\n".encode()


def test_exit_codes_reach_the_shell(agent: FakeAgent, directory: str) -> None:
    assert piped(agent, "env", "NOTHING").returncode == Exit.NOT_FOUND
    assert piped(agent, "--bad").returncode == Exit.USAGE
    missing = piped(agent, "cpu", "--socket", f"{directory}/none.sock", "--timeout", "0.2")
    assert missing.returncode == Exit.UNAVAILABLE
    assert missing.stderr.count(b"\n") == 2


def test_a_terminal_gets_bold_headers_and_cut_lines(agent: FakeAgent) -> None:
    agent.environment.envs["LONG"] = "x" * 500
    written = on_terminal(agent, "env")
    assert written.startswith("\x1b[1mENVIRONMENT\x1b[0m\n")
    plain = written.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert plain.replace("\n", "").isprintable()
    assert max(map(len, plain.splitlines())) == WIDTH
    assert any(line.endswith("x...") for line in plain.splitlines())


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_off_where_they_are_not_wanted(agent: FakeAgent, more: dict[str, str]) -> None:
    assert "\x1b" not in on_terminal(agent, **more)


def test_a_terminal_is_not_steered_by_a_value(agent: FakeAgent) -> None:
    written = on_terminal(agent, "env", "HOSTILE")
    assert written.startswith(r"\x1b[31mred\x1b[0m" + "\nsecond")
    assert not {"\x1b", "\x07", "\x9b", "\x7f", "\u202e"} & set(written)


def test_a_reader_that_goes_away_is_no_traceback(agent: FakeAgent) -> None:
    agent.environment.envs["LONG"] = "x" * 1_000_000
    with subprocess.Popen(
        [COMMAND, "env"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(agent),
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        complaints = running.stderr.read()
    assert complaints == b""
    assert running.returncode == Exit.BROKEN_PIPE


def test_a_full_disk_is_reported(agent: FakeAgent) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [COMMAND, "cpu"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(agent),
            check=False,
        )
    assert done.stderr == b"netutil: cannot write the output: No space left on device\n"
    assert done.returncode == Exit.FAILED


# A background job of a shell inherits SIGINT as ignored (sh(1)); a person's command does not.
_INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_an_interrupt_ends_at_once_without_a_traceback(agent: FakeAgent) -> None:
    agent.delay_seconds = 3
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTIBLE, COMMAND, "cpu", "--timeout", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(agent),
    ) as running:
        while not agent.asked:
            time.sleep(0.01)
        before = time.monotonic()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert time.monotonic() - before < 2.5
    assert (running.returncode, out, err) == (Exit.INTERRUPTED, b"", b"")


def test_a_closed_output_is_a_failure_without_a_traceback(agent: FakeAgent) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{COMMAND} cpu >&-"], capture_output=True, env=environment(agent), check=False
    )
    assert (done.returncode, done.stderr) == (Exit.FAILED, b"")


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("completion", "bash")])
def test_help_on_a_full_disk_ends_without_a_traceback(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b"netutil: cannot write the output: No space left on device\n"
    assert done.returncode == Exit.FAILED


def test_a_full_standard_error_leaves_the_exit_code(directory: str) -> None:
    command = [COMMAND, "cpu", "--socket", f"{directory}/none.sock", "--timeout", "200ms"]
    with open("/dev/full", "wb") as full:
        assert subprocess.run(command, stderr=full, check=False).returncode == Exit.UNAVAILABLE


def test_q_ends_top_and_leaves_the_terminal_as_it_was(agent: FakeAgent) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    env = {**environment(agent), "NETUTIL_ADMIN_SOCKET": agent.path}
    command = [COMMAND, "node", "top", "--interval", "60s"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        while not agent.asked or termios.tcgetattr(theirs)[3] & termios.ICANON:
            time.sleep(0.01)
        os.write(ours, b"xq")
        assert running.wait(timeout=60) == Exit.OK
    assert termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)


def test_top_without_a_terminal_reads_no_keys(agent: FakeAgent) -> None:
    env = {**environment(agent), "NETUTIL_ADMIN_SOCKET": agent.path}
    done = subprocess.run(
        [COMMAND, "node", "top", "--once", "--interval", "10ms"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=env,
        check=True,
    )
    assert b"calls/s" in done.stdout
