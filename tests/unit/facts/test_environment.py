"""The environment that real processes were started with, in every state a process can be in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent import __main__ as agent_main
from netutil.agent.errors import Reason, ResourceExhausted, Unavailable
from netutil.agent.facts import environment as facts
from netutil.agent.facts.environment import MAX_BYTES, read_block
from netutil.agent.parsers.environment import Environment, parse_environment

from tests.support.lab.launch import Launch
from tests.support.lab.processes import Processes, arguments, entries
from tests.support.moved_environment import MOVE
from tests.support.processes import END_OF_FIRST_THREAD, pinned, wait_for_state

TIMEOUT_SECONDS = 20
_START = "import ctypes, os, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_WAIT = "print(flush=True)\nsys.stdin.read()\n"
PYTHON = (sys.executable, "-I", "-S", "-c")


def read_environment(thread: int) -> Environment:
    return parse_environment(read_block(thread))


def environment_of(pid: int) -> Environment:
    directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read_environment(directory)
    finally:
        os.close(directory)


@contextmanager
def running(argv: Sequence[str | bytes]) -> Iterator[int]:
    """A program that answers one line once it runs, and ends when its input does."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline()
        yield process.pid


def script(text: str) -> str:
    """A Python program that does `text`, says so, and waits."""
    return f"{_START}{text}\n{_WAIT}"


def two_hundred_variables() -> dict[bytes, bytes]:
    variables = {
        b"EMPTY": b"",
        b"SIGNS": b"a=b==c=",
        b"LINES": b"one\ntwo\n\nfour\n",
        b"TEXT": "\u00e9\u20ac\U0001f600".encode(),
        b"BAD": b"\xff\xfe",
        b"LATIN": b"caf\xe9",
        b"BIG": b"0123456789abcde=" * 6400,
        b"lower.case-name": b"1",
        b"A\nB": b"newline in the name",
    }
    more = 200 - len(variables)
    return variables | {b"V%03d" % number: b"%d" % number for number in range(more)}


def test_two_hundred_variables_of_every_kind_come_back() -> None:
    variables = two_hundred_variables()
    given = [name + b"=" + value for name, value in variables.items()]
    with running(["env", "-i", *given, "cat"]) as pid:
        found = environment_of(pid)
    assert found == Environment(
        {
            name.decode(): value.decode("utf-8", errors="replace")
            for name, value in variables.items()
        },
        replaced_entries=2,
        skipped_entries=0,
    )
    assert len(found.variables) == 200


FIRST, CHUNK = facts._FIRST_BYTES, facts._CHUNK_BYTES


@pytest.mark.parametrize(
    "size",
    [FIRST - 1, FIRST, FIRST + 1, 2 * FIRST, FIRST + CHUNK - 1, FIRST + CHUNK, FIRST + CHUNK + 1],
)
def test_an_environment_about_as_large_as_a_read_is_read_in_full(size: int) -> None:
    largest = 100 * 1024  # of one variable, execve(2): 128 KiB
    given: list[bytes] = []
    left = size
    while left:
        entry = min(left, largest)
        given.append(f"V{len(given)}=".encode().ljust(entry - 1, b"x"))
        left -= entry
    with running(["env", "-i", *given, "cat"]) as pid, pinned(pid) as process:
        assert facts.read_block(process.directory()) == b"".join(one + b"\0" for one in given)


def read_in_parts(monkeypatch: pytest.MonkeyPatch, given: bytes) -> tuple[bytes, list[int]]:
    """Return the block of a process with one variable, and how much each read(2) asked for."""
    sizes: list[int] = []
    read = os.read

    def count(descriptor: int, size: int) -> bytes:
        sizes.append(size)
        return read(descriptor, size)

    with running(["env", "-i", given, "cat"]) as pid, pinned(pid) as process:
        monkeypatch.setattr(os, "read", count)
        block = facts.read_block(process.directory())
        monkeypatch.undo()
    return block, sizes


def test_a_usual_environment_is_one_read_without_a_new_mapping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block, sizes = read_in_parts(monkeypatch, b"A=1")
    assert block == b"A=1\0"
    assert len(sizes) == 1
    assert sizes[0] <= agent_main._LARGE_BYTES / 4


def test_buffers_of_a_larger_environment_are_as_large_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = b"A=".ljust(2 * FIRST - 1, b"x")
    block, sizes = read_in_parts(monkeypatch, given)
    assert block == given + b"\0"
    assert sizes[0] == FIRST
    assert sizes[-2:] == [FIRST + 1, 1]


def test_a_process_started_without_variables_has_none() -> None:
    with running(["env", "-i", "cat"]) as pid:
        assert environment_of(pid) == Environment({}, 0, 0)


def test_unusual_entries_are_read_as_getenv_reads_them() -> None:
    """execve(2) takes any text: no name, no "=", a name twice."""
    given = [b"TWICE=first", b"TWICE=second", b"=no name", b"no sign", b"EMPTY="]
    ask = "getenv = libc.getenv; getenv.restype = ctypes.c_char_p; print(getenv(b'TWICE').decode())"
    processes = Processes()
    try:
        process = processes.spawn(
            Launch(
                arguments([*PYTHON, script(ask)]), entries(given), uid=os.getuid(), gid=os.getgid()
            ),
            stdin=subprocess.PIPE,
        )
        assert process.stdout is not None
        first = process.stdout.readline().decode().strip()
        found = environment_of(process.host_pid)
    finally:
        processes.close()
    assert found == Environment({"TWICE": "first", "": "no name", "EMPTY": ""}, 0, 1)
    assert found.variables["TWICE"] == first


def test_a_variable_set_after_the_start_is_not_shown() -> None:
    late = script("os.environ['LATE'] = '1'; os.environ['EARLY'] = 'changed'")
    with running(["env", "-i", "EARLY=1", *PYTHON, late]) as pid:
        assert environment_of(pid).variables == {"EARLY": "1"}


def test_a_process_without_its_first_thread_is_read_by_another() -> None:
    with running(["env", "-i", "WHO=still here", *PYTHON, END_OF_FIRST_THREAD]) as pid:
        wait_for_state(pid, "Z")
        with pinned(pid) as pin:
            found = pin.through_running_thread(read_environment)
        assert found == Environment({"WHO": "still here"}, 0, 0)


def test_a_zombie_has_exited() -> None:
    process = subprocess.Popen(["env", "-i", "WHO=dead", "true"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            environment_of(process.pid)
    finally:
        process.wait()


EXIT_THAT_WAITS = f"""{_START}
import signal
if libc.unshare(0x20000000) != 0:  # CLONE_NEWPID
    raise OSError(ctypes.get_errno(), "unshare")
first = os.fork()
if first == 0:
    signal.pause()
if os.fork() == 0:
    signal.pause()
print(first, flush=True)
os.read(0, 1)  # and never a wait for the other child
"""


@pytest.mark.root
def test_an_exiting_process_has_exited_before_it_is_a_zombie() -> None:
    """The first of a PID namespace stays there until all others in it were waited for."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a PID namespace")
    command = [*PYTHON, EXIT_THAT_WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        try:
            first = int(parent.stdout.readline())
            os.kill(first, signal.SIGKILL)
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while Path(f"/proc/{first}/maps").read_text():
                assert time.monotonic() < deadline, "it does not come to its exit"
                time.sleep(0.01)
            assert Path(f"/proc/{first}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
            with pytest.raises(ProcessLookupError):
                environment_of(first)
        finally:
            parent.stdin.close()


def test_a_reaped_process_is_never_the_next_of_its_pid() -> None:
    process = subprocess.Popen(["sleep", "infinity"])
    directory = os.open(f"/proc/{process.pid}", os.O_RDONLY | os.O_DIRECTORY)
    try:
        process.kill()
        process.wait()
        with pytest.raises(ProcessLookupError):
            read_block(directory)
    finally:
        os.close(directory)


@pytest.mark.root
def test_a_kernel_thread_has_no_environment() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: environ of another user")
    if Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("needs the host's PID namespace")
    with pytest.raises(Unavailable) as refusal:
        environment_of(2)
    assert refusal.value.read == "/proc/<pid>/environ"


OVERWRITE = """
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
ctypes.memmove(start, TITLE, len(TITLE))
"""


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        (b"worker: busy", Environment({}, 0, 1)),
        (b"state=\xff", Environment({"state": "\ufffd"}, 1, 0)),
        (b"", Environment({}, 0, 0)),
    ],
)
def test_a_process_that_overwrote_its_environment_is_read_as_is(
    title: bytes, expected: Environment
) -> None:
    """As programs do that show their state in `ps`."""
    text = script(f"TITLE = {title!r}\n{OVERWRITE}")
    with running(["env", "-i", "SECRET=long enough", "MORE=1", *PYTHON, text]) as pid:
        assert environment_of(pid) == expected


@contextmanager
def with_moved_environment(size: int, then: str = "") -> Iterator[int]:
    """A process that moved the addresses of its environment with prctl(2)."""
    with running(["env", "-i", *PYTHON, script(f"SIZE = {size}\n{MOVE}\n{then}")]) as pid:
        yield pid


def test_a_block_as_large_as_the_limit_is_read_whole() -> None:
    with with_moved_environment(MAX_BYTES) as pid:
        found = environment_of(pid)
    assert len(found.variables["BIG"]) == 4096 - len("BIG=\0")
    assert found.skipped_entries == MAX_BYTES // 4096 - 1


def test_a_block_over_the_limit_is_refused() -> None:
    with with_moved_environment(MAX_BYTES + 1) as pid, pytest.raises(ResourceExhausted) as refusal:
        environment_of(pid)
    assert refusal.value.reason is Reason.ENVIRONMENT_TOO_LARGE


def test_only_the_beginning_of_an_oversized_block_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    read = os.read

    def counted(descriptor: int, size: int) -> bytes:
        found = read(descriptor, size)
        taken.append(len(found))
        return found

    with with_moved_environment(100 * 1024 * 1024) as pid:
        monkeypatch.setattr(os, "read", counted)
        with pytest.raises(ResourceExhausted) as refusal:
            environment_of(pid)
    assert refusal.value.reason is Reason.ENVIRONMENT_TOO_LARGE
    assert sum(taken) < 1024 * 1024


def test_memory_that_cannot_be_read_is_no_empty_environment() -> None:
    with (
        with_moved_environment(4096, "libc.munmap(place, SIZE)") as pid,
        pytest.raises(Unavailable) as refusal,
    ):
        environment_of(pid)
    assert refusal.value.reason is Reason.READ_TIMED_OUT


def test_reading_leaves_no_descriptor_open() -> None:
    with running(["env", "-i", "A=1", *PYTHON, END_OF_FIRST_THREAD]) as pid:
        wait_for_state(pid, "Z")
        with pinned(pid) as pin:
            pin.through_running_thread(read_block)
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(10):
                pin.through_running_thread(read_block)
            assert sorted(os.listdir("/proc/self/fd")) == before


def stat_line(code: int, start: int, end: int) -> str:
    """Return a line of /proc/<pid>/stat with such addresses, of a process that runs."""
    fields = ["0"] * 50
    fields[0], fields[23], fields[47], fields[48] = "R", str(code), str(start), str(end)
    return f"7 (cat) {' '.join(fields)}\n"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[int]:
    """A directory that shows an environment without content, as one in /proc."""
    (tmp_path / "environ").write_bytes(b"")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield directory
    os.close(directory)


def test_an_environment_is_empty_once_its_program_is_there(process: int, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(stat_line(1, 4096, 4096))
    assert read_block(process) == b""


def test_an_environment_has_no_end_while_execve_writes_it(
    process: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel sets the end to the start, then reads the entries, then sets the end."""
    (tmp_path / "stat").write_text(stat_line(0, 4096, 4096))

    def ends(seconds: float) -> None:
        (tmp_path / "stat").write_text(stat_line(1, 4096, 4099))
        (tmp_path / "environ").write_bytes(b"A=\0")

    monkeypatch.setattr(time, "sleep", ends)
    assert read_block(process) == b"A=\0"


def test_an_execve_that_takes_long_is_no_empty_environment(process: int, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(stat_line(0, 4096, 4096))
    with pytest.raises(Unavailable, match="begins another program"):
        read_block(process)


def test_hidden_memory_is_no_empty_environment(process: int, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(stat_line(1, 0, 0))
    with pytest.raises(Unavailable, match="hides its memory"):
        read_block(process)
