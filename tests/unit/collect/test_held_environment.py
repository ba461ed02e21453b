"""No answer is older than what the kernel shows when it is asked for, whatever a process does.

A process changes, says so, and is asked about at once over several connections, a thousand times
in each test; others ask all the time meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_reader import EnvironmentReader
from netutil.agent.collect.read_pool import ReadPool, Ready
from netutil.agent.errors import AgentError, Reason
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import Credentials, PinnedProcess

from tests.support.lab.reused_pid import process_under
from tests.support.moved_environment import MOVE
from tests.support.processes import open_descriptors
from tests.unit.facts.test_environment import OVERWRITE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: environments of other users"),
]

CONNECTIONS = 8
ROUNDS = 125
USER = 12345
_CGROUPS: Any = SimpleNamespace(container_id="c" * 64)
_NONE: Any = None

EXECUTE = """echo "$VALUE"; read -r next; exec env VALUE="$next" sh -c "$0" "$0\""""
"""A shell that executes itself, with as much environment and as many arguments as before."""
PYTHON = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
print(flush=True)
for line in sys.stdin:
    value = line.strip()
    {change}
    print(value, flush=True)
"""


class Program:
    """A process that reads a value, changes, and then prints the value."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        self._output.readline()
        self.pid = self._process.pid

    def change(self, value: str) -> None:
        self._input.write(f"{value}\n".encode())
        self._input.flush()
        assert self._output.readline().decode().strip() == value

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def program(*argv: str) -> Iterator[Program]:
    started = Program(argv)
    try:
        yield started
    finally:
        started.close()


def python(change: str) -> tuple[str, ...]:
    environment = ("env", "-i", "VALUE=000000")
    return (*environment, sys.executable, "-I", "-S", "-c", PYTHON.format(change=change))


class OnePod(CallerResolver):
    """Callers of a pod of which every process of this host is."""

    def __init__(self, reads: ReadPool) -> None:
        tree: Any = SimpleNamespace(any_container_directory=lambda _: None)
        super().__init__(tree, _NONE, reads)

    async def process(self, caller: Caller, pid: str) -> tuple[PinnedProcess, Any]:
        if not pid:
            return caller.peer.process.duplicate(), caller.cgroups
        return pin_pid(int(pid)), caller.cgroups


class Connections:
    """Connections of one process to one agent. `first` is what its container was started with."""

    def __init__(self, stack: ExitStack, pid: int, uid: int = 0, first: int | None = None) -> None:
        self._first = first
        self._pins = [pin_pid(pid) for _ in range(CONNECTIONS)]
        for pin in self._pins:
            stack.callback(pin.close)
        self.reads = reads = ReadPool(timeout_seconds=60)
        callers = OnePod(reads)
        reader = EnvironmentReader(callers)
        if first is not None:
            reader.first_processes[_CGROUPS.container_id] = pin_pid(first)
        self.gathering = Collector(callers, reader, _NONE, "/", _NONE, _NONE)
        credentials = Credentials(pid, uid, uid)
        peers = (Peer(credentials, pin, _CGROUPS, "pod") for pin in self._pins)
        self._callers = [Caller(peer, _CGROUPS, None, None) for peer in peers]

    async def ask(self, number: int, pid: str = "") -> str:
        """Return VALUE as one of the connections is answered, or the reason of a refusal."""
        caller = self._callers[number % CONNECTIONS]
        if self._first is not None:
            return await self._ask_for_start(caller)
        try:
            read = self.gathering.environments.read(caller, pid)
            found = read.value if isinstance(read, Ready) else await read
        except AgentError as error:
            return error.reason
        return found.environment.variables.get("VALUE", "")

    async def _ask_for_start(self, caller: Caller) -> str:
        _, found = await self.gathering.environments.read_with_devices(caller, "")
        error = found.error or found.start_error
        if error is not None:
            return error.reason
        (device,) = found.af_xdp or ()
        return device.name

    async def ask_on_each(self, pid: str = "") -> list[str]:
        return await asyncio.gather(*(self.ask(number, pid) for number in range(CONNECTIONS)))


async def changed(
    program: Program, connections: Connections, expected: Callable[[int], str], pid: str = ""
) -> None:
    """Change a program time and again, and assert what each connection is answered at once.

    Meanwhile another caller asks all the time, so that a read may be under way at any moment.
    """
    others = asyncio.create_task(_ask_all_the_time(connections, pid))
    try:
        for number in range(1, ROUNDS + 1):
            await asyncio.to_thread(program.change, f"{number:06}")
            assert await connections.ask_on_each(pid) == [expected(number)] * CONNECTIONS
    finally:
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)


async def _ask_all_the_time(connections: Connections, pid: str) -> None:
    while True:
        await connections.ask(0, pid)
        await asyncio.sleep(0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def as_number(number: int) -> str:
    return f"{number:06}"


async def test_a_program_that_executes_itself_is_read_as_it_is(
    stack: ExitStack,
) -> None:
    """Without randomised addresses not one of the addresses in stat differs."""
    shell = ("setarch", "-R", "env", "-i", "VALUE=000000", "sh", "-c", EXECUTE, EXECUTE)
    target = stack.enter_context(program(*shell))
    target.change(as_number(0))  # what a shell adds to its environment is there from now on
    before = addresses(target.pid)
    await changed(target, Connections(stack, target.pid), as_number)
    assert addresses(target.pid) == before


def addresses(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[42:49]


async def test_a_program_that_overwrites_its_environment_is_read_as_is(
    stack: ExitStack,
) -> None:
    write = OVERWRITE.replace("TITLE", "title").replace("\n", "\n    ")
    target = stack.enter_context(program(*python(f"title = b'VALUE=' + value.encode(){write}")))
    await changed(target, Connections(stack, target.pid), as_number)


async def test_a_program_that_moves_its_environment_is_read_there(
    stack: ExitStack,
) -> None:
    move = MOVE.replace('b"BIG=", 4', "b'VALUE=' + value.encode() + b'\\0', 13")
    move = move.replace("SIZE", "4096").replace("\n", "\n    ")
    target = stack.enter_context(program(*python(f"pass{move}")))
    await changed(target, Connections(stack, target.pid), as_number)


async def test_a_program_with_other_ids_is_refused_until_it_drops_them(
    stack: ExitStack,
) -> None:
    target = stack.enter_context(program(*python(f"os.seteuid({USER} * (int(value) % 2))")))

    def expected(number: int) -> str:
        return Reason.ENVIRONMENT_NOT_READABLE if number % 2 else as_number(0)

    await changed(target, Connections(stack, target.pid), expected)


async def test_an_undumpable_program_is_refused_to_another_process(
    stack: ExitStack,
) -> None:
    to_user = f"os.setresgid(*[{USER}] * 3); os.setresuid(*[{USER}] * 3)"
    asking = stack.enter_context(program(*python(to_user)))
    asking.change("1")
    change = f"{to_user}; libc.prctl(4, 1 - int(value) % 2)"
    target = stack.enter_context(program(*python(change)))

    def expected(number: int) -> str:
        return Reason.ENVIRONMENT_NOT_READABLE if number % 2 else as_number(0)

    connections = Connections(stack, asking.pid, USER)
    await changed(target, connections, expected, str(target.pid))


@pytest.fixture
def setuid_shell() -> Iterator[Path]:
    with setuid_env(USER) as shell:
        yield shell


@pytest.fixture
def setuid_of_another() -> Iterator[Path]:
    with setuid_env(USER + 1) as shell:
        yield shell


@contextmanager
def setuid_env(owner: int) -> Iterator[Path]:
    """Make a copy of env(1) that runs as its owner."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        shell = Path(folder) / "env"
        shutil.copy("/usr/bin/env", shell)
        os.chown(shell, owner, owner)
        shell.chmod(0o6755)
        yield shell


async def test_a_program_that_executes_a_setuid_program_is_refused(
    stack: ExitStack, setuid_shell: Path
) -> None:
    """It asks as root; the program that it executes is another user's."""
    script = f'echo; read -r next; exec {setuid_shell} SECRET=1 sh -p -c "echo $next; read -r x"'
    asked = 0
    for number in range(10):
        target = stack.enter_context(program("env", "-i", "VALUE=000000", "sh", "-c", script))
        connections = Connections(stack, target.pid)
        assert await connections.ask_on_each() == [as_number(0)] * CONNECTIONS
        others = asyncio.create_task(_ask_all_the_time(connections, ""))
        await asyncio.to_thread(target.change, str(number))
        for _ in range(13):
            answers = await connections.ask_on_each()
            assert set(answers) == {Reason.ENVIRONMENT_NOT_READABLE}
            asked += len(answers)
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
    assert asked > 1000


SHARES_MEMORY = """
import os, sys
os.posix_spawn("/usr/bin/env", ["env", "sh", "-c", "echo; read -r x"], {"VALUE": sys.argv[2]},
               file_actions=[(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)])
sys.stdin.read()
"""
"""Its child shares its memory until a writer opens a pipe, then executes a program (vfork(2))."""


async def test_a_program_that_left_shared_memory_is_read_as_it_is(
    stack: ExitStack, tmp_path: Path
) -> None:
    """A descriptor of `environ` that was kept open shows the memory that the process has left."""
    for number in range(10):
        pipe = tmp_path / str(number)
        os.mkfifo(pipe)
        parent = sharing_memory(pipe, as_number(number + 1))
        stack.callback(parent.communicate)
        stack.callback(parent.kill)
        child = await asyncio.to_thread(child_in_memory_of, parent.pid)
        connections = Connections(stack, child)
        kept = os.open(f"/proc/{child}/environ", os.O_RDONLY)
        stack.callback(os.close, kept)
        assert await connections.ask_on_each() == [as_number(0)] * CONNECTIONS
        others = asyncio.create_task(_ask_all_the_time(connections, ""))
        writer = os.open(pipe, os.O_WRONLY)
        stack.callback(os.close, writer)
        assert parent.stdout is not None
        assert await asyncio.to_thread(parent.stdout.readline) == b"\n"
        assert await connections.ask_on_each() == [as_number(number + 1)] * CONNECTIONS
        assert os.pread(kept, 4096, 0) == b"VALUE=000000\0"
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)


def sharing_memory(pipe: Path, value: str) -> subprocess.Popen[bytes]:
    """Start the parent of a process that executes a program with a value once the pipe opens."""
    command = [sys.executable, "-I", "-S", "-c", SHARES_MEMORY, str(pipe), value]
    environment = {"VALUE": as_number(0)}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def child_in_memory_of(pid: int) -> int:
    """Return the child that a process has spawned, which has not executed its program yet."""
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        os.sched_yield()
    return int(children[0])


START = "AFXDP_DEVICES"
"""The variable whose value is asked for of the process that a container was started with."""
AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
BECOME_USER = f"os.setresgid(*[{USER}] * 3); os.setresuid(*[{USER}] * 3); libc.prctl(4, 1)"
EFFECTIVE = """
    class Data(ctypes.Structure):
        _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32),
                    ("inheritable", ctypes.c_uint32)]
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (Data * 2)()
    assert libc.capget(header, data) == 0
    for word in data:
        word.effective = 0 if int(value) % 2 else word.permitted
    assert libc.capset(header, data) == 0"""
callers = pytest.mark.parametrize(
    ("uid", "become"), [(0, ()), (USER, AS_USER)], ids=["root", "user"]
)


def for_start(argv: Sequence[str]) -> tuple[str, ...]:
    """Return a program that changes the variable that is asked for of a container's start."""
    return tuple(word.replace("VALUE", START) for word in argv)


def sleeping(stack: ExitStack, become: Sequence[str]) -> int:
    """Start a process that asks, under a command that makes it what it is; return its PID."""
    asking = stack.enter_context(program("env", "-i", *become, "sh", "-c", "echo; read -r x"))
    return asking.pid


@callers
async def test_a_start_that_executes_itself_is_read_as_it_is(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    shell = (*become, "setarch", "-R", "env", "-i", "VALUE=000000", "sh", "-c", EXECUTE, EXECUTE)
    first = stack.enter_context(program(*for_start(shell)))
    connections = Connections(stack, sleeping(stack, become), uid, first.pid)
    await changed(first, connections, as_number)


@callers
async def test_a_start_that_overwrites_its_environment_is_read_as_is(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    write = OVERWRITE.replace("TITLE", "title").replace("\n", "\n    ")
    ids = BECOME_USER if uid else "pass"
    change = f"title = b'VALUE=' + value.encode(){write}\n    {ids}"
    first = stack.enter_context(program(*for_start(python(change))))
    connections = Connections(stack, sleeping(stack, become), uid, first.pid)
    await changed(first, connections, as_number)


async def test_a_start_with_other_ids_is_refused_until_it_drops_them(
    stack: ExitStack,
) -> None:
    change = f"os.seteuid({USER} * (int(value) % 2))"
    first = stack.enter_context(program(*for_start(python(change))))
    await changed(first, Connections(stack, sleeping(stack, ()), 0, first.pid), refused_if_odd)


def refused_if_odd(number: int) -> str:
    return Reason.ENVIRONMENT_NOT_READABLE if number % 2 else as_number(0)


@pytest.mark.parametrize(
    ("uid", "become"), [(0, WITHOUT_CAPABILITIES), (USER, AS_USER)], ids=["root", "user"]
)
async def test_a_start_that_is_not_dumpable_is_refused(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    ids = BECOME_USER if uid else "pass"
    change = python(f"{ids}; libc.prctl(4, 1 - int(value) % 2)")
    first = stack.enter_context(program(*(() if uid else become), *for_start(change)))
    connections = Connections(stack, sleeping(stack, become), uid, first.pid)
    await changed(first, connections, refused_if_odd)


async def test_a_start_is_read_with_the_callers_present_capabilities(
    stack: ExitStack,
) -> None:
    first = stack.enter_context(program(*for_start(python("pass"))))
    asking = stack.enter_context(program(*python(f"pass{EFFECTIVE}")))
    await changed(asking, Connections(stack, asking.pid, 0, first.pid), refused_if_odd)


async def test_a_start_is_not_for_a_caller_while_it_has_other_ids(stack: ExitStack) -> None:
    first = stack.enter_context(program(*for_start(python("pass"))))
    asking = stack.enter_context(program(*python(f"os.seteuid({USER} * (int(value) % 2))")))
    await changed(asking, Connections(stack, asking.pid, 0, first.pid), refused_if_odd)


@callers
async def test_a_start_that_executes_a_setuid_program_is_refused(
    stack: ExitStack, setuid_of_another: Path, uid: int, become: Sequence[str]
) -> None:
    """The program that it executes is another user's."""
    secret = f"{START}=secret"
    script = (
        f'echo; read -r next; exec {setuid_of_another} {secret} sh -p -c "echo $next; read -r x"'
    )
    asked = 0
    for number in range(10):
        shell = ("env", "-i", f"{START}=000000", *become, "sh", "-c", script)
        first = stack.enter_context(program(*shell))
        connections = Connections(stack, sleeping(stack, become), uid, first.pid)
        assert await connections.ask_on_each() == [as_number(0)] * CONNECTIONS
        others = asyncio.create_task(_ask_all_the_time(connections, ""))
        await asyncio.to_thread(first.change, str(number))
        for _ in range(13):
            answers = await connections.ask_on_each()
            assert set(answers) == {Reason.ENVIRONMENT_NOT_READABLE}
            asked += len(answers)
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
    assert asked > 1000


@callers
async def test_no_thread_is_started_for_a_start(
    stack: ExitStack, uid: int, become: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = ("env", "-i", f"{START}=000000", *become, "sh", "-c", "echo; read -r x")
    first = stack.enter_context(program(*shell))
    connections = Connections(stack, sleeping(stack, become), uid, first.pid)
    assert await connections.ask(0) == as_number(0)
    started: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread.name))
    for _ in range(ROUNDS):
        assert await connections.ask_on_each() == [as_number(0)] * CONNECTIONS
    assert not started
    assert connections.reads.threads == 1


@callers
async def test_a_thread_has_the_agents_credentials_after_a_start(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    shell = ("env", "-i", f"{START}=000000", *become, "sh", "-c", "echo; read -r x")
    first = stack.enter_context(program(*shell))
    connections = Connections(stack, sleeping(stack, become), uid, first.pid)
    readable = as_number(0)
    hidden = stack.enter_context(program(*for_start(python("pass"))))
    refused = Connections(stack, sleeping(stack, AS_USER), USER, hidden.pid)
    own = thread_credentials()
    for _ in range(ROUNDS):
        assert await connections.ask(0) == readable
        assert await connections.reads.run("pod", thread_credentials, "status") == own
        assert await refused.ask(0) == Reason.ENVIRONMENT_NOT_READABLE
        assert await refused.reads.run("pod", thread_credentials, "status") == own
    assert connections.reads.threads == refused.reads.threads == 1


def thread_credentials() -> list[str]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("Uid:", "Gid:", "Groups:", "Cap"))]


@callers
async def test_a_process_with_the_pid_of_an_ended_start_is_not_read(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    shell = (*become, "env", "-i", f"{START}=000000", "sh", "-c", "echo; read -r x")
    first = program(*shell)
    pid = stack.enter_context(first).pid
    connections = Connections(stack, sleeping(stack, become), uid, pid)
    assert await connections.ask_on_each() == [as_number(0)] * CONNECTIONS
    others = asyncio.create_task(_ask_all_the_time(connections, ""))
    first.__exit__(None, None, None)
    with process_under(pid, {START: "another"}):
        for _ in range(ROUNDS):
            # The container has no cgroup here in which its first process would be searched.
            assert set(await connections.ask_on_each()) == {Reason.PID_NOT_FOUND}
    others.cancel()
    await asyncio.gather(others, return_exceptions=True)


@callers
async def test_a_start_that_ends_during_its_read_is_never_cut(
    stack: ExitStack, uid: int, become: Sequence[str]
) -> None:
    asking = sleeping(stack, become)
    shell = (*become, "env", "-i", f"{START}=000000", "sh", "-c", "echo; read -r x")
    # Of one that has no memory any more the kernel, or the agent, refuses the read.
    refusals = {Reason.PEER_GONE, Reason.PEER_NOT_PINNED, Reason.ENVIRONMENT_NOT_READABLE}
    expected = {as_number(0), Reason.PID_NOT_FOUND, *refusals}
    for _ in range(25):
        with program(*shell) as first:
            connections = Connections(stack, asking, uid, first.pid)
            answers: list[str] = []
            os.kill(first.pid, signal.SIGKILL)
            while Reason.PID_NOT_FOUND not in answers:
                answers += await connections.ask_on_each()
        assert set(answers) <= expected
        assert set(await connections.ask_on_each()) == {Reason.PID_NOT_FOUND}


async def test_first_processes_are_held_within_their_limit(stack: ExitStack) -> None:
    started = [stack.enter_context(program("sh", "-c", "echo; read -r x")) for _ in range(9)]
    kept = EnvironmentReader(OnePod(ReadPool()), max_first_processes=4).first_processes
    before = open_descriptors()
    for one in started:
        kept[str(one.pid)] = pin_pid(one.pid)
    assert len(kept) <= 4
    assert open_descriptors() == before + 2 * len(kept)
    for _ in range(6):
        kept.age()
    assert open_descriptors() == before
