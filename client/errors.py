"""What a call of this client can raise.

One hierarchy with a class per thing that a caller can *do* about a failure: try
again later (`Unavailable`), ask for something else (`NotFound`,
`InvalidRequest`), mend a manifest (`Denied`, `NotIdentified`, `Unreachable`).
The reason says which failure it is; docs/troubleshooting.md has an entry for
each. Wrong use of the client itself (a timeout of zero, a call on a closed
client, a client used after a fork) is a ValueError or a RuntimeError.
"""

from __future__ import annotations


class NetUtilError(Exception):
    """The agent did not answer the question. `str()` of it is the sentence.

    `code` is the name of the gRPC status ("PERMISSION_DENIED"). `reason` is the
    agent's or this client's stable name of the failure ("VARIABLE_NOT_SET"), ""
    if the failure bears none. `sentence` is one plain sentence, `read` names what
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
        return self.message


class NotIdentified(NetUtilError):
    """The agent cannot tell who is calling (UNAUTHENTICATED).

    Not expected: the agent's own deployment lacks something (hostPID), or the
    process that opened the connection is gone. See `advice`.
    """


class Denied(NetUtilError):
    """The caller may not have the answer (PERMISSION_DENIED).

    The caller is no pod, asks about a process outside its pod or about an
    environment that it could not read itself; or the kernel does not let it open
    the socket (reason SOCKET_NOT_PERMITTED). Asking again changes nothing.
    """


class InvalidRequest(NetUtilError):
    """The request is not well-formed (INVALID_ARGUMENT): correct the arguments."""


class NotFound(NetUtilError):
    """No such process, variable or interface in the caller's view (NOT_FOUND). Expected."""


class Inconsistent(NetUtilError):
    """What the agent read contradicts itself or breaks its specification (FAILED_PRECONDITION).

    `read` says where; whoever wrote it (a CNI plugin, a container runtime) has to mend it.
    """


class Unavailable(NetUtilError):
    """The agent, or a source that it reads, cannot be reached now (UNAVAILABLE).

    Expected in operation. The client has already tried again until its deadline.
    """


class Unreachable(Unavailable):
    """The socket cannot be reached and waiting does not help, so there was no second try.

    The directory is not mounted, or what stands at the path is no socket.
    """


class LimitReached(NetUtilError):
    """A limit of the agent is reached (RESOURCE_EXHAUSTED): hold fewer connections, ask less.

    Where `retry_after_seconds` is set, the client has already tried again until its deadline.
    """


class DeadlineExceeded(NetUtilError):
    """There was no answer in time (DEADLINE_EXCEEDED)."""


KINDS: dict[str, type[NetUtilError]] = {
    "UNAUTHENTICATED": NotIdentified,
    "PERMISSION_DENIED": Denied,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": Inconsistent,
    "UNAVAILABLE": Unavailable,
    "RESOURCE_EXHAUSTED": LimitReached,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
}
