"""Every refusal and failure that a caller can be told about.

One hierarchy, so that each room can say what went wrong without knowing gRPC:
the class says what kind of failure it is, the reason says which one, and
`netutil.agent.service.status` alone turns both into a gRPC status. Errors that
are not of this hierarchy are bugs of the agent and are answered as INTERNAL.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The reason of a google.rpc.ErrorInfo; docs/troubleshooting.md has one entry for each."""

    PEER_GONE = "PEER_GONE"
    PEER_NOT_VISIBLE = "PEER_NOT_VISIBLE"
    PEER_NOT_PINNED = "PEER_NOT_PINNED"
    CONNECTION_UNKNOWN = "CONNECTION_UNKNOWN"

    NOT_A_POD = "NOT_A_POD"
    UNKNOWN_TO_POD_LIST = "UNKNOWN_TO_POD_LIST"
    CGROUP_NOT_OWNED_BY_ROOT = "CGROUP_NOT_OWNED_BY_ROOT"
    PID_OUTSIDE_POD = "PID_OUTSIDE_POD"
    ENVIRONMENT_NOT_READABLE = "ENVIRONMENT_NOT_READABLE"
    NOT_AN_OPERATOR = "NOT_AN_OPERATOR"

    PID_MALFORMED = "PID_MALFORMED"
    INTERFACE_MALFORMED = "INTERFACE_MALFORMED"

    PID_NOT_FOUND = "PID_NOT_FOUND"
    VARIABLE_NOT_SET = "VARIABLE_NOT_SET"
    INTERFACE_NOT_FOUND = "INTERFACE_NOT_FOUND"

    CGROUPS_DISAGREE = "CGROUPS_DISAGREE"
    CONTAINER_IN_TWO_PODS = "CONTAINER_IN_TWO_PODS"
    NETWORK_STATUS_MALFORMED = "NETWORK_STATUS_MALFORMED"
    CPUSET_NOT_FOUND = "CPUSET_NOT_FOUND"
    CPU_LIST_MALFORMED = "CPU_LIST_MALFORMED"
    QUANTITY_MALFORMED = "QUANTITY_MALFORMED"
    NETWORK_NAMESPACE_CHANGING = "NETWORK_NAMESPACE_CHANGING"

    POD_RESOURCES_AMBIGUOUS = "POD_RESOURCES_AMBIGUOUS"
    CONTAINER_WITHOUT_RESOURCES = "CONTAINER_WITHOUT_RESOURCES"
    CGROUP_FILE_UNUSABLE = "CGROUP_FILE_UNUSABLE"

    POD_LIST_UNAVAILABLE = "POD_LIST_UNAVAILABLE"
    POD_RESOURCES_UNAVAILABLE = "POD_RESOURCES_UNAVAILABLE"
    POD_RESOURCES_UNIMPLEMENTED = "POD_RESOURCES_UNIMPLEMENTED"
    READ_TIMED_OUT = "READ_TIMED_OUT"
    NETWORK_NAMESPACE_NOT_READABLE = "NETWORK_NAMESPACE_NOT_READABLE"
    AGENT_RESTARTING = "AGENT_RESTARTING"

    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    TOO_MANY_CONNECTIONS_OF_POD = "TOO_MANY_CONNECTIONS_OF_POD"
    TOO_MANY_READS_OF_POD = "TOO_MANY_READS_OF_POD"
    TOO_MANY_CALLS_OF_POD = "TOO_MANY_CALLS_OF_POD"
    TOO_MANY_UNREAD_ANSWERS = "TOO_MANY_UNREAD_ANSWERS"
    TOO_MANY_PROCESSES = "TOO_MANY_PROCESSES"
    ENVIRONMENT_TOO_LARGE = "ENVIRONMENT_TOO_LARGE"
    TOO_MANY_DEVICES = "TOO_MANY_DEVICES"
    NETWORK_NAMESPACE_TOO_LARGE = "NETWORK_NAMESPACE_TOO_LARGE"


class AgentError(Exception):
    """A failure that is told to the caller: what was asked, what was read, what to do.

    `sentence` is one plain sentence; `read` names what was being read ("" if
    nothing was); `advice` says what the reader can do ("" if nothing).
    """

    def __init__(self, reason: Reason, sentence: str, *, read: str = "", advice: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.read = read
        self.advice = advice


class Unidentified(AgentError):
    """Nobody can be said to be asking: the peer is gone or cannot be pinned."""


class Denied(AgentError):
    """The caller is known, or known not to be a pod, and may not have the answer."""


class Invalid(AgentError):
    """The request is not well-formed, whoever sends it."""


class Missing(AgentError):
    """What was asked for by name does not exist in the caller's view."""


class Inconsistent(AgentError):
    """Two sources contradict each other, or a source breaks its own specification."""


class Unavailable(AgentError):
    """A source cannot be read now. Expected in operation; the caller may try again."""

    retry_after_seconds = 1.0


class Exhausted(AgentError):
    """A limit of the agent is reached."""
