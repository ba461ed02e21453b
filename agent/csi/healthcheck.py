"""`netutil-csi --check`: a client of the running driver, for the liveness probe.

The client finds what a process cannot know of itself: that its sockets were removed, or replaced by
those of a driver that does not run, and that the source was removed from the host.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import grpc
from netutil.agent.csi.config import Config
from netutil.agent.csi.sockets import registration_paths
from netutil.agent.csi.startup import is_removed
from netutil.csi.v1 import csi_pb2, csi_pb2_grpc
from netutil.csi.v1 import pluginregistration_pb2 as messages
from netutil.csi.v1 import pluginregistration_pb2_grpc as services

_SECONDS = 2.0
_MAX_REGISTRATIONS = 2
"""That of this instance, and that of another one during an update."""


def check(config: Config) -> int:
    """Return 0 if the driver works, else 1, and print why to standard error."""
    problem = _source(config) or _probe(config.endpoint) or _registration(config)
    if problem:
        print(f"netutil-csi: {problem}", file=sys.stderr)
        return 1
    return 0


def _source(config: Config) -> str:
    try:
        removed = is_removed(config.source)
    except OSError as error:
        return f"cannot stat {config.source}: {error.strerror}"
    return f"{config.source} was removed from the host" if removed else ""


def _probe(path: str) -> str:
    def call(channel: grpc.Channel) -> str:
        answer = csi_pb2_grpc.IdentityStub(channel).Probe(csi_pb2.ProbeRequest(), timeout=_SECONDS)
        ready = not answer.HasField("ready") or answer.ready.value
        return "" if ready else f"{path}: the driver is not ready"

    return _call(path, call)


def _registration(config: Config) -> str:
    try:
        paths = registration_paths(config.registry, config.name)
    except OSError as error:
        return f"cannot read {config.registry}: {error.strerror}"
    problem = f"{config.registry} has no registration socket of {config.name}"
    for path in paths[:_MAX_REGISTRATIONS]:
        problem = _call(path, partial(_get_info, path, config))
        if not problem:
            return ""
    return problem


def _get_info(path: str, config: Config, channel: grpc.Channel) -> str:
    info = services.RegistrationStub(channel).GetInfo(messages.InfoRequest(), timeout=_SECONDS)
    if (info.name, info.endpoint) != (config.name, config.endpoint):
        return f"{path}: another driver answers: {info.name!r} at {info.endpoint!r}"
    return ""


def _call(path: str, call: Callable[[grpc.Channel], str]) -> str:
    """Return what `call` returns, or why the server did not answer."""
    options = (("grpc.default_authority", "localhost"),)
    with grpc.insecure_channel(f"unix:{path}", options=options) as channel:
        try:
            return call(channel)
        except grpc.RpcError as error:
            return f"{path}: {error.details()}"
