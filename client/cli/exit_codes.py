"""The exit codes of the command `netutil`, which are stable for scripts."""

from __future__ import annotations

from enum import IntEnum

from netutil.client.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NetUtilError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)


class Exit(IntEnum):
    """Meaning of an exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_PERMITTED = 4
    UNAVAILABLE = 5
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXPLANATION = """\
exit status:
    0  answered
    1  any other error (its reason is in brackets), or the output could not be written;
       node explain: the process is refused; node doctor: a check failed
    2  the command line, or a value in it, is not well-formed
    3  not found: no such variable, interface or process
    4  not permitted, or the agent cannot identify the caller
    5  the agent, or a source of it, is unavailable or did not answer in time
  130  interrupted
  141  the reader of the output closed it (SIGPIPE)
"""

_KINDS: tuple[tuple[type[NetUtilError], Exit], ...] = (
    (InvalidArgument, Exit.USAGE),
    (NotFound, Exit.NOT_FOUND),
    (PermissionDenied, Exit.NOT_PERMITTED),
    (Unauthenticated, Exit.NOT_PERMITTED),
    (Unavailable, Exit.UNAVAILABLE),
    (DeadlineExceeded, Exit.UNAVAILABLE),
)


def exit_code_for(error: NetUtilError) -> Exit:
    """The exit code for a script, by the kind of error."""
    return next((code for kind, code in _KINDS if isinstance(error, kind)), Exit.FAILED)
