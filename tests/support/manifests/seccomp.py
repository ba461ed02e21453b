"""Puts this process under a seccomp profile as a runtime does, then executes a program.

Runs as a script (`python -I -S seccomp.py PROFILE PROGRAM…`), which the program
then replaces. The profile is a JSON object as the OCI runtime specification has it
(config-linux.md, "Seccomp"); libseccomp makes a filter of it, as it does for runc.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

LIBRARY = "libseccomp.so.2"
# seccomp.h of libseccomp
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_UNKNOWN = -1
_OPERATORS = {"SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_ARCHITECTURES = {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_AARCH64": 0xC00000B7}
_EEXIST = 17


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


def load(profile: dict[str, Any]) -> None:
    """Let this thread, and what it starts, make no system calls but those of the profile.

    The process must have no_new_privs or CAP_SYS_ADMIN. Raises OSError if the kernel or
    libseccomp refuses; a name that libseccomp does not know is passed over, as by runc.
    """
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    if not context:
        raise OSError(0, "seccomp_init")
    for name in profile["architectures"]:
        done = library.seccomp_arch_add(context, ctypes.c_uint32(_ARCHITECTURES[name]))
        _check(0 if done == -_EEXIST else done, f"seccomp_arch_add {name}")
    for rule in profile["syscalls"]:
        comparisons = [_comparison(argument) for argument in rule.get("args", ())]
        given = (_Comparison * len(comparisons))(*comparisons)
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:
            continue  # libseccomp refuses those; runc passes over them
        for name in rule["names"]:
            number = number_of(name)
            if number != _UNKNOWN:
                done = library.seccomp_rule_add_array(
                    context, ctypes.c_uint32(action), number, len(given), given
                )
                _check(done, f"seccomp_rule_add {name}")
    _check(library.seccomp_load(context), "seccomp_load")
    library.seccomp_release(context)


def number_of(name: str) -> int:
    """The number of a system call here: below -1 if only others have it, -1 if none is known."""
    number: int = ctypes.CDLL(LIBRARY).seccomp_syscall_resolve_name(name.encode())
    return number


def _action(name: str, number: int | None) -> int:
    return {"SCMP_ACT_ALLOW": _ALLOW, "SCMP_ACT_ERRNO": _ERRNO | (number or 1)}[name]


def _comparison(argument: dict[str, Any]) -> _Comparison:
    operator = _OPERATORS[argument["op"]]
    return _Comparison(argument["index"], operator, argument["value"], argument.get("valueTwo", 0))


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(-result, os.strerror(-result), what)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        load(json.load(file))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell wanted
