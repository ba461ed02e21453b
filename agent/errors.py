"""Errors that a caller can get, each with a reason.

One hierarchy, so that each package can name a failure without gRPC:
the class says what kind of failure it is, the reason says which one, and
`netutil.agent.messages.status` alone turns both into a gRPC status. Errors that
are not of this hierarchy are bugs of the agent and are answered as INTERNAL.
"""

from __future__ import annotations

import errno
from enum import StrEnum
from typing import Self


class Reason(StrEnum):
    """The reason of a google.rpc.ErrorInfo; docs/troubleshooting.md has one entry for each."""

    PEER_GONE = "PEER_GONE"
    PEER_NOT_VISIBLE = "PEER_NOT_VISIBLE"
    PEER_NOT_PINNED = "PEER_NOT_PINNED"

    NOT_A_POD = "NOT_A_POD"
    UNKNOWN_TO_POD_LIST = "UNKNOWN_TO_POD_LIST"
    CGROUP_NOT_OWNED_BY_ROOT = "CGROUP_NOT_OWNED_BY_ROOT"
    OUTSIDE_KUBELET_CGROUPS = "OUTSIDE_KUBELET_CGROUPS"
    PID_OUTSIDE_POD = "PID_OUTSIDE_POD"
    ENVIRONMENT_NOT_READABLE = "ENVIRONMENT_NOT_READABLE"
    NOT_AN_OPERATOR = "NOT_AN_OPERATOR"

    PID_MALFORMED = "PID_MALFORMED"
    INTERFACE_MALFORMED = "INTERFACE_MALFORMED"

    PID_NOT_FOUND = "PID_NOT_FOUND"
    VARIABLE_NOT_SET = "VARIABLE_NOT_SET"
    INTERFACE_NOT_FOUND = "INTERFACE_NOT_FOUND"
    POD_GONE = "POD_GONE"
    POD_NOT_FOUND = "POD_NOT_FOUND"

    CGROUPS_DISAGREE = "CGROUPS_DISAGREE"
    CONTAINER_IN_TWO_PODS = "CONTAINER_IN_TWO_PODS"
    NETWORK_STATUS_MALFORMED = "NETWORK_STATUS_MALFORMED"
    CPUSET_NOT_FOUND = "CPUSET_NOT_FOUND"
    CPU_LIST_MALFORMED = "CPU_LIST_MALFORMED"
    QUANTITY_MALFORMED = "QUANTITY_MALFORMED"
    RESOURCE_CLAIMS_MALFORMED = "RESOURCE_CLAIMS_MALFORMED"
    RESOURCE_CLAIMS_OFF = "RESOURCE_CLAIMS_OFF"
    RESOURCE_CLAIM_NOT_RESERVED = "RESOURCE_CLAIM_NOT_RESERVED"
    DEVICE_METADATA_MALFORMED = "DEVICE_METADATA_MALFORMED"
    DEVICE_METADATA_CONTRADICTS = "DEVICE_METADATA_CONTRADICTS"
    NETWORK_NAMESPACE_CHANGING = "NETWORK_NAMESPACE_CHANGING"

    POD_RESOURCES_AMBIGUOUS = "POD_RESOURCES_AMBIGUOUS"
    CONTAINER_WITHOUT_RESOURCES = "CONTAINER_WITHOUT_RESOURCES"
    CONTAINER_NOT_LISTED = "CONTAINER_NOT_LISTED"
    NOT_IN_A_CONTAINER = "NOT_IN_A_CONTAINER"
    CGROUP_FILE_UNUSABLE = "CGROUP_FILE_UNUSABLE"

    POD_LIST_UNAVAILABLE = "POD_LIST_UNAVAILABLE"
    CONTAINER_NOT_REPORTED = "CONTAINER_NOT_REPORTED"
    POD_RESOURCES_UNAVAILABLE = "POD_RESOURCES_UNAVAILABLE"
    POD_RESOURCES_UNIMPLEMENTED = "POD_RESOURCES_UNIMPLEMENTED"
    READ_TIMED_OUT = "READ_TIMED_OUT"
    NETWORK_NAMESPACE_NOT_READABLE = "NETWORK_NAMESPACE_NOT_READABLE"
    RESOURCE_CLAIMS_UNAVAILABLE = "RESOURCE_CLAIMS_UNAVAILABLE"
    DEVICE_METADATA_CHANGING = "DEVICE_METADATA_CHANGING"
    FILE_NOT_READABLE = "FILE_NOT_READABLE"
    AGENT_RESTARTING = "AGENT_RESTARTING"

    AGENT_MEMORY_LOW = "AGENT_MEMORY_LOW"
    AGENT_OUT_OF_RESOURCES = "AGENT_OUT_OF_RESOURCES"
    TOO_MANY_CONNECTIONS = "TOO_MANY_CONNECTIONS"
    TOO_MANY_CONNECTIONS_OF_POD = "TOO_MANY_CONNECTIONS_OF_POD"
    TOO_MANY_READS_OF_POD = "TOO_MANY_READS_OF_POD"
    TOO_MANY_CALLS_OF_POD = "TOO_MANY_CALLS_OF_POD"
    TOO_MANY_CALLS_PER_SECOND = "TOO_MANY_CALLS_PER_SECOND"
    TOO_MANY_STREAMS_OF_POD = "TOO_MANY_STREAMS_OF_POD"
    TOO_MANY_HEADER_BYTES = "TOO_MANY_HEADER_BYTES"
    TOO_MUCH_OVERHEAD_OF_POD = "TOO_MUCH_OVERHEAD_OF_POD"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    TOO_MANY_UNREAD_ANSWERS = "TOO_MANY_UNREAD_ANSWERS"
    TOO_MANY_PROCESSES = "TOO_MANY_PROCESSES"
    ENVIRONMENT_TOO_LARGE = "ENVIRONMENT_TOO_LARGE"
    TOO_MANY_DEVICES = "TOO_MANY_DEVICES"
    TOO_MANY_CLAIM_DEVICES = "TOO_MANY_CLAIM_DEVICES"
    NETWORK_NAMESPACE_TOO_LARGE = "NETWORK_NAMESPACE_TOO_LARGE"


class AgentError(Exception):
    """A failure that the caller gets as a status.

    `message` is one plain sentence. `read` names what was being read, "" for nothing. `advice`
    says what the caller or the administrator can do, "" for nothing. `retry_after_seconds` is the
    delay after which a retry may succeed, None if a retry does not help. `quota_key` is the quota
    key of a connection whose calls get this error, None if it is not known.
    """

    retry_after_seconds: float | None = None
    quota_key: str | None = None

    def __init__(self, reason: Reason, message: str, *, read: str = "", advice: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.read = read
        self.advice = advice

    def without_frames(self) -> Self:
        """Return an equal error without a traceback, for raising an error that is kept.

        A kept error would collect the frames of every call that raises it.
        """
        return type(self)(self.reason, self.message, read=self.read, advice=self.advice)


class Unauthenticated(AgentError):
    """The peer cannot be identified: its process has exited or cannot be pinned."""


class PermissionDenied(AgentError):
    """The caller is identified, or is no pod process, and may not get the answer."""


class InvalidArgument(AgentError):
    """The request is not well-formed."""


class NotFound(AgentError):
    """The requested name does not exist in the caller's view."""


class FailedPrecondition(AgentError):
    """Two sources contradict each other, or a source violates its specification."""


class Unavailable(AgentError):
    """A source cannot be read now. Expected in operation; the caller may retry."""

    retry_after_seconds: float = 1.0

    def with_retry_after(self, retry_after_seconds: float) -> Unavailable:
        """Return an equal error with another delay and without the traceback.

        A kept error would keep the frames in which it was raised, with the body of a response;
        an error that many callers raise would collect the frames of all of them.
        """
        error = Unavailable(self.reason, self.message, read=self.read, advice=self.advice)
        error.retry_after_seconds = retry_after_seconds
        return error


class ResourceExhausted(AgentError):
    """A limit of the agent is reached: the requested amount is too large."""


class QuotaExceeded(ResourceExhausted):
    """The caller's pod is over one of its limits now. The pod may retry when it uses less."""

    retry_after_seconds: float = 1.0


_EXHAUSTED_RESOURCES = {
    errno.EMFILE: (
        "the agent has as many files open as it may",
        "On the node, raise the agent's limit of open files, or lower --max-connections.",
    ),
    errno.ENFILE: (
        "the node has as many files open as it may",
        "On the node, look who holds them (`sysctl fs.file-nr`), or raise fs.file-max.",
    ),
    errno.ENOMEM: (
        "the kernel has no memory for it",
        "On the node, look at the memory of the node and of the agent's container.",
    ),
}


def is_resource_exhaustion(error: OSError) -> bool:
    """Return whether the agent or the node ran out of descriptors or memory."""
    return error.errno in _EXHAUSTED_RESOURCES


def resource_exhausted(error: OSError, read: str) -> QuotaExceeded | None:
    """Return the error of a read that ran out of descriptors or memory, None for other failures.

    EMFILE, ENFILE and ENOMEM do not mean that the file is missing or forbidden.
    """
    if error.errno not in _EXHAUSTED_RESOURCES:
        return None
    why, advice = _EXHAUSTED_RESOURCES[error.errno]
    return QuotaExceeded(
        Reason.AGENT_OUT_OF_RESOURCES,
        f"{read} could not be read now: {why}.",
        read=read,
        advice=f"Ask again in a moment. {advice}",
    )


def unreadable(error: OSError, read: str) -> AgentError:
    """Return the error for a file of the node that exists and cannot be read.

    `read` names the file. Only the part of the answer that needs the file is missing.
    """
    return resource_exhausted(error, read) or Unavailable(
        Reason.FILE_NOT_READABLE,
        f"{read} could not be read: {error.strerror or error}.",
        read=read,
        advice="On the node, look at what the agent's container may read below --host-root.",
    )
