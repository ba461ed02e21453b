"""Converts errors of the driver into statuses, in one place.

The kubelet takes INVALID_ARGUMENT and INTERNAL as final: the volume is not mounted. The kubelet
takes UNAVAILABLE as uncertain, and calls again (kubernetes pkg/volume/csi/csi_client.go,
isFinalError).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
from netutil.agent.csi.errors import InvalidRequest, SourceRemoved, VolumeError

_LOG = logging.getLogger(__name__)


@contextmanager
def answering(
    method: str, context: grpc.ServicerContext, end: Callable[[], None]
) -> Iterator[None]:
    """Abort the call with the status of the error that the block raises.

    `end` is called for an error that only a restart of the container solves.
    """
    try:
        yield
    except VolumeError as error:
        _LOG.warning("csi: %s: %s", method, error)
        if isinstance(error, SourceRemoved):
            end()
        context.abort(_code_of(error), str(error))


def _code_of(error: VolumeError) -> grpc.StatusCode:
    match error:
        case InvalidRequest():
            return grpc.StatusCode.INVALID_ARGUMENT
        case SourceRemoved():
            return grpc.StatusCode.UNAVAILABLE
        case _:
            return grpc.StatusCode.INTERNAL
