"""What a call of this client can raise.

One hierarchy with a class per thing that a caller can *do* about a failure: try
again later (`Unavailable`), ask for something else (`NotFound`,
`InvalidArgument`), fix a manifest (`PermissionDenied`, `Unauthenticated`, `Unreachable`).
The reason says which failure it is; docs/troubleshooting.md has an entry for
each. Wrong use of the client itself (a timeout of zero, a call on a closed
client, a client used after a fork) is a ValueError or a RuntimeError.
"""

from __future__ import annotations


class NetUtilError(Exception):
    """The agent did not answer the call. `str()` is the sentence with the reason in brackets.

    `code` is the name of the gRPC status ("PERMISSION_DENIED"). `reason` is the
    agent's or this client's stable name of the failure ("VARIABLE_NOT_SET"), ""
    if the failure has none. `sentence` is one plain sentence, `read` names what
    was being read, `advice` says what to do; both are "" where there is nothing
    to say. `retry_after_seconds` is the pause that the agent asks for, or None.

    Raised as itself for what is not expected in operation: a bug of the agent
    (INTERNAL, UNKNOWN) or an agent older than this client (UNIMPLEMENTED).
    """

    def __init__(
        self,
        message: str,
        code: str,
        *,
        reason: str = "",
        read: str = "",
        advice: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code
        self.reason = reason
        self.read = read
        self.advice = advice
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return f"{self.message} [{self.reason or self.code}]"


class Unauthenticated(NetUtilError):
    """The agent cannot identify the caller (UNAUTHENTICATED).

    Not expected: the agent's own deployment lacks something (hostPID), or the
    process that opened the connection has exited. See `advice`.
    """


class PermissionDenied(NetUtilError):
    """The caller may not have the answer (PERMISSION_DENIED).

    The caller is no pod, asks about a process outside its pod or about an
    environment that it could not read itself; or the kernel does not let it open
    the socket (reason SOCKET_NOT_PERMITTED). Asking again changes nothing.
    """


class InvalidArgument(NetUtilError):
    """The request is not well-formed (INVALID_ARGUMENT): correct the arguments."""


class NotFound(NetUtilError):
    """No such process, variable or interface in the caller's view (NOT_FOUND). Expected."""


class FailedPrecondition(NetUtilError):
    """What the agent read contradicts itself or breaks its specification (FAILED_PRECONDITION).

    `read` names the source; its writer (a CNI plugin, a container runtime) has to fix it.
    """


class Unavailable(NetUtilError):
    """The agent, or a source that it reads, cannot be reached now (UNAVAILABLE).

    Expected in operation. The client has already tried again until its deadline.
    """


class Unreachable(Unavailable):
    """The socket cannot be reached and waiting does not help, so there was no second try.

    The directory is not mounted, or the file at the path is no socket.
    """


class ResourceExhausted(NetUtilError):
    """A limit of the agent is reached (RESOURCE_EXHAUSTED): hold fewer connections, ask less.

    Where `retry_after_seconds` is set, the client has already tried again until its deadline.
    """


class DeadlineExceeded(NetUtilError):
    """There was no answer in time (DEADLINE_EXCEEDED)."""


KINDS: dict[str, type[NetUtilError]] = {
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "INVALID_ARGUMENT": InvalidArgument,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": FailedPrecondition,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}
