"""Errors of the CSI driver.

A hierarchy of its own, and not that of `netutil.agent.errors`: the caller is the kubelet, which
reads a code, and puts the message into an event of the pod, word for word. `answering` alone
converts an error into a status.
"""

from __future__ import annotations


class StartError(Exception):
    """The driver cannot start, or cannot go on; the message is one line and says the fix."""


class VolumeError(Exception):
    """A request of the kubelet fails. The message is one sentence for the pod's event."""


class InvalidRequest(VolumeError):
    """INVALID_ARGUMENT: the pod's manifest or the CSIDriver object must change."""


class VolumeFailed(VolumeError):
    """INTERNAL: the node does not allow it. The kubelet tries again."""


class SourceRemoved(VolumeError):
    """UNAVAILABLE: the source was removed from the host. The driver ends, to be started again."""
