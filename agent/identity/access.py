"""Whether the kernel would let one process read another's environment.

The rule (ptrace(2), "Ptrace access mode checking", PTRACE_MODE_READ_FSCREDS)
takes ids, dumpability, capabilities and security modules into account. It is
not written again here: a thread takes on the caller's file system ids and
capabilities, which are per thread in Linux, and opens the file. The kernel
decides.
"""

from __future__ import annotations

import ctypes
import os
import threading

from netutil.agent.errors import Denied, Reason
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.process import ProcessStatus

_CAPABILITY_VERSION_3 = 0x20080522
_ANY_ID = 0xFFFFFFFF
_LIBC = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def ensure_may_read_environment(caller: PinnedProcess, target: PinnedProcess) -> None:
    """Raise `Denied` unless `caller` could read /proc/<target>/environ by itself.

    Both must bear the same real, effective and saved ids, and the kernel must
    agree. A caller in another user namespace than the agent's is asked for
    without capabilities, and nobody with the power that the owner of a user
    namespace has over it: both may be refused what the kernel itself allows them.
    Raises `Unidentified` if either is gone. Blocks for a moment: not for the loop.
    """
    asking, asked = caller.status(), target.status()
    same_ids = asking.uids[:3] == asked.uids[:3] and asking.gids[:3] == asked.gids[:3]
    if not same_ids:
        raise _refused("it runs under other user or group ids")
    capabilities = asking.effective_capabilities if _in_own_user_namespace(caller) else 0
    allowed = _open_as(asking, capabilities, target.directory())
    caller.ensure_alive()
    target.ensure_alive()
    if not allowed:
        raise _refused("the kernel does not let the caller read it (ptrace access mode)")


def _open_as(caller: ProcessStatus, capabilities: int, directory: int) -> bool:
    """Return whether `environ` below `directory` opens with the caller's credentials."""
    outcome: list[bool | OSError] = []

    def attempt() -> None:
        # The thread ends after this: its credentials are never given back.
        try:
            _take_on(caller, capabilities)
        except OSError as error:
            outcome.append(error)
            return
        try:
            os.close(os.open("environ", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory))
        except OSError:
            outcome.append(False)
        else:
            outcome.append(True)

    thread = threading.Thread(target=attempt, name="ask-as-caller", daemon=True)
    thread.start()
    thread.join()
    (answer,) = outcome
    if isinstance(answer, OSError):
        raise answer
    return answer


def _take_on(caller: ProcessStatus, capabilities: int) -> None:
    uid, gid = caller.uids[3], caller.gids[3]
    _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)
    # These calls do not say whether they succeeded; asking for an impossible id
    # returns the one in force.
    if (_LIBC.setfsgid(ctypes.c_uint32(_ANY_ID)), _LIBC.setfsuid(ctypes.c_uint32(_ANY_ID))) != (
        gid,
        uid,
    ):
        raise PermissionError("cannot take on the caller's ids; CAP_SETUID and CAP_SETGID needed")
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    own = (_CapabilityData * 2)()
    if _LIBC.capget(ctypes.byref(header), own) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    wanted = (_CapabilityData * 2)()
    for index in range(2):
        bits = (capabilities >> (32 * index)) & 0xFFFFFFFF & own[index].permitted
        wanted[index] = _CapabilityData(bits, bits, 0)
    if _LIBC.capset(ctypes.byref(header), wanted) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _in_own_user_namespace(process: PinnedProcess) -> bool:
    own = os.stat("/proc/self/ns/user")
    its = os.stat("ns/user", dir_fd=process.directory())
    return (own.st_dev, own.st_ino) == (its.st_dev, its.st_ino)


def _refused(why: str) -> Denied:
    return Denied(
        Reason.ENVIRONMENT_NOT_READABLE,
        f"The environment of that process is not for the caller: {why}.",
        read="/proc/<pid>/environ",
        advice="Ask for the calling process itself (an empty pid), or from a process that"
        " could read that file on its own.",
    )
