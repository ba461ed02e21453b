"""Parses /proc/<pid>/stat and status. Source: proc_pid_stat(5), proc_pid_status(5)."""

from __future__ import annotations

import re

import msgspec

_FIELDS_AFTER_NAME = 3
_FLAGS = 9
_USER_TIME = 14
_SYSTEM_TIME = 15
_START_TIME = 22
_START_CODE = 26
_PROCESSOR = 39
_ENVIRONMENT_START = 50
_ENVIRONMENT_END = 51
# include/linux/sched.h
_PF_EXITING = 0x00000004
_PF_KTHREAD = 0x00200000
_ENDED_STATES = ("Z", "X")  # zombie, dead
# No process brings these lines into the first one, its name, as the kernel escapes "\n" there.
_STATE = re.compile(rb"\nState:\t(\S)")
_IDS = re.compile(rb"\nUid:\t(\d+)\t(\d+)\t(\d+)\t\d+\nGid:\t(\d+)\t(\d+)\t(\d+)\t\d+\n")
_EFFECTIVE_CAPABILITIES = re.compile(rb"\nCapEff:\t([0-9a-f]{16})\n")


class Stat(msgspec.Struct, frozen=True):
    """The fields of /proc/<pid>/stat that the agent uses.

    `start_ticks` counts clock ticks since boot. `has_exited`: this thread runs no more,
    whether or not it was waited for. The environment's addresses are None on a kernel
    that hides them (zeroes count as hidden). `has_program`: its memory holds one. There is no
    memory at the end, and execve(2) notes the program after the environment (`load_elf_binary` in
    the kernel's fs/binfmt_elf.c), which has no end until then.
    """

    has_exited: bool
    has_program: bool
    start_ticks: int
    environment_start: int | None
    environment_end: int | None


class ProcessStatus(msgspec.Struct, frozen=True):
    """The fields of /proc/<pid>/status, or of /proc/<pid>/task/<tid>/status, that the agent uses.

    `namespace_pids` is NStgid: the process's number in each PID namespace, from
    the reader's own inwards (NSpid is the thread's number). `uids` and `gids` are real,
    effective, saved and file system ids. `effective_capabilities` is the CapEff bit mask.
    `has_ended`: the thread is a zombie or dead, whether or not the process has other threads.
    """

    namespace_pids: tuple[int, ...]
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    effective_capabilities: int
    cpus_allowed: str
    has_ended: bool


Ids = tuple[int, int, int, int, int, int]
"""The real, effective and saved user id and the same of the group."""


class ThreadCredentials(msgspec.Struct, frozen=True):
    """What the kernel decides by when a thread reads another: part of /proc/<pid>/status.

    `ids` are the real, effective and saved user id and the same of the group.
    `effective_capabilities` is the CapEff bit mask. `has_ended` as in `ProcessStatus`.
    """

    ids: Ids
    effective_capabilities: int
    has_ended: bool

    @property
    def effective_ids(self) -> tuple[int, int]:
        """Return the effective user and group id."""
        return self.ids[1], self.ids[4]


class TaskStatus(msgspec.Struct, frozen=True):
    """What identifies a process or a thread to an operator: part of its status file.

    `name` is the command's, as the kernel escapes it, without arguments. `number_inside` is its own
    number in its innermost PID namespace (NSpid). `threads` is how many the process has.
    """

    name: str
    number_inside: int
    threads: int


class TaskUse(msgspec.Struct, frozen=True):
    """What a process or a thread uses, and since when: part of its stat file.

    `state` is the letter of proc_pid_stat(5). `cpu_ticks` is user and system time, and
    `start_ticks` the start since that of the node, both in clock ticks. `cpu` is the CPU that it
    runs on or ran on last.
    """

    state: str
    cpu_ticks: int
    start_ticks: int
    cpu: int


class Description(msgspec.Struct, frozen=True):
    """What identifies a process to a person. `name` is the command's, without arguments.

    `state` is the letter of proc_pid_stat(5). `number` is the thread's own, which is the
    process's for its first thread. `thread_of` is the process whose thread it is.
    """

    number: int
    name: str
    state: str
    thread_of: int
    parent: int
    is_kernel_thread: bool


def describe(status: str, stat: str) -> Description:
    """Return the description in both texts. Raises ValueError if they are not as documented."""
    fields = dict(line.split(":", 1) for line in status.split("\n") if ":" in line)
    after_name = stat.rpartition(")")[2].split()
    try:
        return Description(
            number=int(fields["Pid"]),
            name=fields["Name"].strip(),
            state=after_name[0],
            thread_of=int(fields["Tgid"]),
            parent=int(fields["PPid"]),
            is_kernel_thread=bool(int(after_name[_FLAGS - _FIELDS_AFTER_NAME]) & _PF_KTHREAD),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(f"not a process's status and stat: {error}") from error


def parse_stat(text: str) -> Stat:
    """Return the parsed line. Raises ValueError if it is not as proc_pid_stat(5) says.

    The name in field 2 may hold spaces and parentheses, so fields are counted
    from the *last* ")".
    """
    _, parenthesis, rest = text.rpartition(")")
    fields = rest.split()
    if not parenthesis or len(fields) <= _START_TIME - _FIELDS_AFTER_NAME:
        raise ValueError(f"not a stat line: {text!r}")
    flags = int(fields[_FLAGS - _FIELDS_AFTER_NAME])
    return Stat(
        has_exited=fields[0] in _ENDED_STATES or bool(flags & _PF_EXITING),
        has_program=_address(fields, _START_CODE) is not None,
        start_ticks=int(fields[_START_TIME - _FIELDS_AFTER_NAME]),
        environment_start=_address(fields, _ENVIRONMENT_START),
        environment_end=_address(fields, _ENVIRONMENT_END),
    )


def parse_status(text: str) -> ProcessStatus:
    """Return the parsed file. Raises ValueError if a field is missing or malformed.

    Lines end with "\\n" only: the process chooses its name, which is in here,
    and the kernel escapes no other separator in it.
    """
    namespace_pids = tuple(map(int, _value(text, "NStgid").split()))
    if not namespace_pids:
        raise ValueError("the status file's NStgid line is empty")
    return ProcessStatus(
        namespace_pids=namespace_pids,
        uids=_four(_value(text, "Uid")),
        gids=_four(_value(text, "Gid")),
        effective_capabilities=int(_value(text, "CapEff"), 16),
        cpus_allowed=_value(text, "Cpus_allowed_list").strip(),
        has_ended=_value(text, "State").strip()[:1] in _ENDED_STATES,
    )


def parse_task_status(text: str) -> TaskStatus:
    """Return the parsed status file. Raises ValueError if it is not as documented.

    The process chooses its name, which is on the first line: no field is searched for there.
    """
    first, _, _ = text.partition("\n")
    head, tab, name = first.partition(":\t")
    if head != "Name" or not tab:
        raise ValueError("no Name line in the status file")
    numbers = _value(text, "NSpid").split()
    if not numbers:
        raise ValueError("the status file's NSpid line is empty")
    return TaskStatus(
        name=name,
        number_inside=int(numbers[-1]),
        threads=int(_value(text, "Threads")),
    )


def parse_task_use(text: str) -> TaskUse:
    """Return the parsed stat file. Raises ValueError if it is not as proc_pid_stat(5) says."""
    _, parenthesis, rest = text.rpartition(")")
    fields = rest.split()
    if not parenthesis or len(fields) <= _PROCESSOR - _FIELDS_AFTER_NAME:
        raise ValueError(f"not a stat line: {text!r}")

    def number(field: int) -> int:
        return int(fields[field - _FIELDS_AFTER_NAME])

    return TaskUse(
        state=fields[0],
        cpu_ticks=number(_USER_TIME) + number(_SYSTEM_TIME),
        start_ticks=number(_START_TIME),
        cpu=number(_PROCESSOR),
    )


def parse_credentials(text: bytes) -> ThreadCredentials:
    """Return the credentials in a status file, in a third of the time of `parse_status`.

    Raises ValueError if a field is missing or malformed.
    """
    state, ids = _STATE.search(text), _IDS.search(text)
    capabilities = _EFFECTIVE_CAPABILITIES.search(text)
    if state is None or ids is None or capabilities is None:
        raise ValueError("no State, Uid and Gid, or CapEff line in the status file")
    real_user, user, saved_user, real_group, group, saved_group = map(int, ids.groups())
    return ThreadCredentials(
        (real_user, user, saved_user, real_group, group, saved_group),
        int(capabilities[1], 16),
        state[1].decode("ascii", errors="replace") in _ENDED_STATES,
    )


def _value(text: str, name: str) -> str:
    """Return what a line of a status file says: a search of six lines, where it has sixty.

    None of them is the first, which is the process's name.
    """
    head = f"\n{name}:"
    start = text.find(head)
    if start < 0:
        raise ValueError(f"no {name} line in the status file")
    start += len(head)
    end = text.find("\n", start)
    return text[start:end] if end >= 0 else text[start:]


def _four(text: str) -> tuple[int, int, int, int]:
    real, effective, saved, file_system = map(int, text.split())
    return real, effective, saved, file_system


def _address(fields: list[str], number: int) -> int | None:
    index = number - _FIELDS_AFTER_NAME
    return int(fields[index]) or None if index < len(fields) else None
