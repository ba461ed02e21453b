"""No answer is older than what the kernel shows when it is asked for, whatever a process does.

A process changes, says so, and is asked about at once over several connections, a thousand times
in each test; others ask all the time meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.errors import AgentError, Reason
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pinning import pin_pid
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.gather import Gathering
from netutil.agent.service.reads import ReadPool

from tests.facts.test_environment import OVERWRITE
from tests.support.moved_environment import MOVE

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
    """A process that changes when it is told a value, and says the value once that is done."""

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


class OnePod(Callers):
    """Callers of a pod of which every process of this host is."""

    def __init__(self, reads: ReadPool) -> None:
        super().__init__(_NONE, _NONE, reads)

    async def process(self, caller: Caller, pid: str) -> tuple[PinnedProcess, Any]:
        if not pid:
            return caller.peer.process.duplicate(), caller.cgroups
        return pin_pid(int(pid)), caller.cgroups


class Connections:
    """Connections of one process to one agent."""

    def __init__(self, stack: ExitStack, pid: int, uid: int = 0) -> None:
        self._pins = [pin_pid(pid) for _ in range(CONNECTIONS)]
        for pin in self._pins:
            stack.callback(pin.close)
        reads = ReadPool(timeout_seconds=60)
        self.gathering = Gathering(OnePod(reads), reads, _NONE, "/", _NONE, _NONE)
        credentials = Credentials(pid, uid, uid)
        peers = (Peer(credentials, pin, _CGROUPS, "pod") for pin in self._pins)
        self._callers = [Caller(peer, _CGROUPS, None, None) for peer in peers]

    async def ask(self, number: int, pid: str = "") -> str:
        """Return VALUE as one of the connections is answered, or the reason of a refusal."""
        caller = self._callers[number % CONNECTIONS]
        try:
            found = await self.gathering.environment(caller, pid)
        except AgentError as error:
            return error.reason
        return found.environment.variables.get("VALUE", "")

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


async def test_a_program_that_executes_itself_at_the_same_addresses_is_read_as_it_is(
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


async def test_a_program_that_writes_over_its_environment_is_read_as_it_is(
    stack: ExitStack,
) -> None:
    write = OVERWRITE.replace("TITLE", "title").replace("\n", "\n    ")
    target = stack.enter_context(program(*python(f"title = b'VALUE=' + value.encode(){write}")))
    await changed(target, Connections(stack, target.pid), as_number)


async def test_a_program_that_moves_its_environment_is_read_where_it_is(
    stack: ExitStack,
) -> None:
    move = MOVE.replace('b"BIG=", 4', "b'VALUE=' + value.encode() + b'\\0', 13")
    move = move.replace("SIZE", "4096").replace("\n", "\n    ")
    target = stack.enter_context(program(*python(f"pass{move}")))
    await changed(target, Connections(stack, target.pid), as_number)


async def test_a_program_that_takes_on_other_ids_is_refused_until_it_gives_them_back(
    stack: ExitStack,
) -> None:
    target = stack.enter_context(program(*python(f"os.seteuid({USER} * (int(value) % 2))")))

    def expected(number: int) -> str:
        return Reason.ENVIRONMENT_NOT_READABLE if number % 2 else as_number(0)

    await changed(target, Connections(stack, target.pid), expected)


async def test_a_program_that_is_not_dumpable_is_refused_to_another_process(
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
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        shell = Path(folder) / "env"
        shutil.copy("/usr/bin/env", shell)
        os.chown(shell, USER, USER)
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
