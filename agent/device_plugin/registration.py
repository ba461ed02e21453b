"""Registers a plugin with the kubelet, and explains why that failed."""

from __future__ import annotations

from urllib.parse import quote

import grpc
from netutil.agent.device_plugin.service import OPTIONS
from netutil.agent.kubelet.socket import (
    LOOK_AT_KUBELET,
    KubeletSocket,
    connection_problem,
    printable,
)
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2 as v1beta1
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2_grpc

KUBELET_SOCKET = "kubelet.sock"
VERSION = "v1beta1"
REGISTER_SECONDS = 15.0
"""Since Kubernetes 1.25 the kubelet connects to the plugin meanwhile, for 10 s at most."""
_MAX_ANSWER_BYTES = 64 * 1024
_CLIENT_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_MOUNT = (
    "Look whether the kubelet runs, whether --device-plugin-dir names its directory of device"
    " plugins, and whether that directory is mounted into the agent."
)
_SOCKET = KubeletSocket(
    name="device plugin",
    api="device plugins",
    flag="--device-plugin-dir",
    if_missing=_MOUNT,
    if_denied="The agent has to run as root of the host; look also at SELinux and AppArmor.",
)


class NotRegistered(Exception):
    """The kubelet does not have the plugin. Expected; the agent tries again.

    `message` is one sentence, `advice` says what to do.
    """

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


async def register(socket_path: str, endpoint: str, resource_name: str) -> None:
    """Register a plugin that listens on the socket `endpoint` beside the kubelet's.

    Raises `NotRegistered`.
    """
    if (problem := connection_problem(socket_path)) is not None:
        raise NotRegistered(*_SOCKET.explained(problem)) from None
    request = v1beta1.RegisterRequest(
        version=VERSION, endpoint=endpoint, resource_name=resource_name, options=OPTIONS
    )
    address = "unix:" + quote(socket_path)
    async with grpc.aio.insecure_channel(address, options=_CLIENT_OPTIONS) as channel:
        stub: deviceplugin_pb2_grpc.RegistrationAsyncStub
        stub = deviceplugin_pb2_grpc.RegistrationStub(channel)
        try:
            await stub.Register(request, timeout=REGISTER_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _refused(error) from None


def _refused(error: grpc.aio.AioRpcError) -> NotRegistered:
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = f"The kubelet did not answer the registration within {REGISTER_SECONDS:g} s."
        return NotRegistered(text, "The kubelet is overloaded or stuck; the agent tries again.")
    said = printable(error.details() or "")
    text = f"The kubelet refused the registration with {code.name}: {said}."
    return NotRegistered(text, LOOK_AT_KUBELET)
