"""The services that every gRPC server has: health checking and reflection.

Both are grpcio's own servicers, unmodified. grpcio-reflection has `grpc.reflection.v1alpha` alone.
`grpc.reflection.v1` has the same messages in another package (grpc-proto,
grpc/reflection/v1/reflection.proto), so the same servicer serves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from netutil.agent.grpcserver import Server

HEALTH: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REFLECTION_V1ALPHA: str = reflection.SERVICE_NAME
REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"

_V1ALPHA_PACKAGE: str = reflection_pb2.DESCRIPTOR.package
_V1_PACKAGE = "grpc.reflection.v1"
_V1_FILE = "grpc/reflection/v1/reflection.proto"


async def add_health(server: Server, names: Iterable[str]) -> health.aio.HealthServicer:
    """Serve `grpc.health.v1.Health`, and return its servicer.

    The server as a whole (the empty name) and each of the services `names` are SERVING.
    """
    servicer = health.aio.HealthServicer()
    for name in ("", *names):
        await servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_reflection(server: Server, names: Iterable[str]) -> None:
    """Serve reflection as `v1` and `v1alpha`; it lists the services `names` and both of its own."""
    _describe_v1()
    listed = (*names, REFLECTION_V1, REFLECTION_V1ALPHA)
    servicer = reflection.aio.ReflectionServicer(listed, _Descriptors())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)
    info = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_registered_method_handlers(REFLECTION_V1, {"ServerReflectionInfo": info})


class _Descriptors:
    """The default descriptor pool as the servicer uses it, which finds the file of a method too.

    reflection.proto allows `<package>.<service>.<method>` as a symbol. protobuf's own pool does
    not find these.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(descriptor_pool.Default(), name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        """Return the file that declares a symbol. Raises KeyError if there is none."""
        pool = descriptor_pool.Default()
        try:
            return pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return pool.FindMethodByName(symbol).containing_service.file


def _describe_v1() -> None:
    """Put the descriptor of `grpc.reflection.v1` where the servicer looks descriptors up.

    The descriptor is that of v1alpha with the package's name replaced. Adding it again changes
    nothing.
    """
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = _V1_FILE, _V1_PACKAGE
    file.ClearField("options")  # names of other languages' packages, and v1alpha's deprecation
    for message in file.message_type:
        for field in message.field:
            if field.HasField("type_name"):
                field.type_name = _in_v1(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type = _in_v1(method.input_type)
            method.output_type = _in_v1(method.output_type)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def _in_v1(type_name: str) -> str:
    return type_name.replace(f".{_V1ALPHA_PACKAGE}.", f".{_V1_PACKAGE}.")
