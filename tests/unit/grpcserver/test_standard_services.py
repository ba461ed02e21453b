"""Health checking and reflection, asked by grpcio's clients over a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from netutil.agent.grpcserver import Server, standard_services
from netutil.agent.grpcserver import frames as f
from netutil.v1alpha import netutil_pb2

from tests.support.grpcserver.raw import RawClient, fields
from tests.support.http2 import message

NETUTIL = netutil_pb2.DESCRIPTOR.services_by_name["NetUtil"].full_name
Answer = health_pb2.HealthCheckResponse
PACKAGES = ["grpc.reflection.v1", "grpc.reflection.v1alpha"]
_SECONDS = 10.0


@dataclass(frozen=True)
class Served:
    """A server with the standard services, at a path."""

    server: Server
    health: health.aio.HealthServicer
    path: str

    async def set(self, name: str, status: Any) -> None:
        await self.health.set(name, status)


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Served]:
    server = Server()
    servicer = await standard_services.add_health(server, (NETUTIL,))
    standard_services.add_reflection(server, (NETUTIL, standard_services.HEALTH))
    path = str(directory / "net.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        accepting = asyncio.create_task(_accept(listener, server))
        try:
            yield Served(server, servicer, path)
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            await server.stop(0)


async def _accept(listener: socket.socket, server: Server) -> None:
    loop = asyncio.get_running_loop()
    while True:
        accepted, _ = await loop.sock_accept(listener)
        server.serve(accepted, None)


@contextlib.asynccontextmanager
async def connected(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    options = (("grpc.default_authority", "localhost"),)
    async with grpc.aio.insecure_channel(f"unix:{served.path}", options) as channel:
        async with asyncio.timeout(_SECONDS):
            yield channel


# Health


def _in_sync(path: str, ask: Callable[[Any], Any]) -> Any:
    """Ask as a program does that has no event loop."""
    with grpc.insecure_channel(f"unix:{path}") as channel:
        return ask(health_pb2_grpc.HealthStub(channel))


def _request(name: str) -> Any:
    return health_pb2.HealthCheckRequest(service=name)


@pytest.mark.parametrize("name", ["", NETUTIL])
async def test_check_answers_that_a_service_is_serving(name: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with connected(served) as channel:
            answer = await health_pb2_grpc.HealthStub(channel).Check(_request(name))
        found = await asyncio.to_thread(
            _in_sync, served.path, lambda stub: stub.Check(_request(name), timeout=_SECONDS)
        )
    assert answer.status == found.status == Answer.SERVING


async def test_check_of_an_unknown_service_is_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        async with connected(served) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await health_pb2_grpc.HealthStub(channel).Check(_request("no.Such"))
        with pytest.raises(grpc.RpcError) as in_sync:
            await asyncio.to_thread(
                _in_sync, served.path, lambda stub: stub.Check(_request("x"), timeout=_SECONDS)
            )
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert in_sync.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_sends_the_status_at_once_and_then_changes_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(_request(NETUTIL))
        assert (await watch.read()).status == Answer.SERVING
        await served.set(NETUTIL, Answer.SERVING)
        await served.set("another", Answer.NOT_SERVING)
        await served.set(NETUTIL, Answer.NOT_SERVING)
        assert (await watch.read()).status == Answer.NOT_SERVING
        await served.set(NETUTIL, Answer.SERVING)
        assert (await watch.read()).status == Answer.SERVING
        watch.cancel()


async def test_a_watch_of_an_unknown_service_stays_open(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(_request("later"))
        assert (await watch.read()).status == Answer.SERVICE_UNKNOWN
        await served.set("later", Answer.SERVING)
        assert (await watch.read()).status == Answer.SERVING
        watch.cancel()


async def test_a_cancelled_watch_leaves_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        before = len(asyncio.all_tasks())
        watch = health_pb2_grpc.HealthStub(channel).Watch(_request(NETUTIL))
        assert (await watch.read()).status == Answer.SERVING
        watch.cancel()
        while served.health._server_watchers or len(asyncio.all_tasks()) > before:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        answer = await health_pb2_grpc.HealthStub(channel).Check(_request(""))
        assert answer.status == Answer.SERVING


async def test_a_program_without_an_event_loop_watches_too(tmp_path: Path) -> None:
    def ask(stub: Any) -> Any:
        watch = stub.Watch(_request(NETUTIL), timeout=_SECONDS)
        first = next(watch)
        watch.cancel()
        return first

    async with serving(tmp_path) as served:
        assert (await asyncio.to_thread(_in_sync, served.path, ask)).status == Answer.SERVING


async def test_list_is_unimplemented_as_in_grpcios_servicer(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        ask: Any = channel.unary_unary(f"/{standard_services.HEALTH}/List")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_shutdown_sends_not_serving_to_watchers(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(_request(name)) for name in ("", NETUTIL)]
        for watch in watches:
            assert (await watch.read()).status == Answer.SERVING
        await served.health.enter_graceful_shutdown()
        for watch in watches:
            assert (await watch.read()).status == Answer.NOT_SERVING
        await served.set(NETUTIL, Answer.SERVING)
        assert (await stub.Check(_request(NETUTIL))).status == Answer.NOT_SERVING
        for watch in watches:
            watch.cancel()


async def test_a_watcher_that_does_not_read_delays_no_other_or_stop(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as served, connected(served) as channel:
        client = RawClient(*await asyncio.open_unix_connection(served.path))
        client.hello(INITIAL_WINDOW_SIZE=0)
        request = message(_request(NETUTIL).SerializeToString())
        client.ask(1, request, head=fields(p_path=f"/{standard_services.HEALTH}/Watch"))
        await client.until(f.HEADERS, 1)
        watch = health_pb2_grpc.HealthStub(channel).Watch(_request(NETUTIL))
        assert (await watch.read()).status == Answer.SERVING
        await served.health.enter_graceful_shutdown()
        assert (await watch.read()).status == Answer.NOT_SERVING
        watch.cancel()
        client.writer.close()
        await client.writer.wait_closed()


# Reflection


@dataclass(frozen=True)
class Messages:
    """The messages of one of the reflection packages, from a descriptor of its file."""

    request: Any
    response: Any
    path: str

    def open(self, channel: grpc.aio.Channel) -> Any:
        return channel.stream_stream(
            self.path,
            request_serializer=self.request.SerializeToString,
            response_deserializer=self.response.FromString,
        )()


# Of grpc-proto, grpc/reflection/v1/reflection.proto.
FIELDS = {
    "ServerReflectionRequest": {
        "host": 1,
        "file_by_filename": 3,
        "file_containing_symbol": 4,
        "file_containing_extension": 5,
        "all_extension_numbers_of_type": 6,
        "list_services": 7,
    },
    "ExtensionRequest": {"containing_type": 1, "extension_number": 2},
    "ServerReflectionResponse": {
        "valid_host": 1,
        "original_request": 2,
        "file_descriptor_response": 4,
        "all_extension_numbers_response": 5,
        "list_services_response": 6,
        "error_response": 7,
    },
    "FileDescriptorResponse": {"file_descriptor_proto": 1},
    "ExtensionNumberResponse": {"base_type_name": 1, "extension_number": 2},
    "ListServiceResponse": {"service": 1},
    "ServiceResponse": {"name": 1},
    "ErrorResponse": {"error_code": 1, "error_message": 2},
}


def messages_of(package: str) -> Messages:
    """The messages of a package, from nothing but their published names and numbers."""
    kinds = {
        "file_containing_extension": "ExtensionRequest",
        "original_request": "ServerReflectionRequest",
        "file_descriptor_response": "FileDescriptorResponse",
        "all_extension_numbers_response": "ExtensionNumberResponse",
        "list_services_response": "ListServiceResponse",
        "error_response": "ErrorResponse",
        "service": "ServiceResponse",
    }
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="test.proto", package=package, syntax="proto3")
    for message_name, numbers in FIELDS.items():
        one = file.message_type.add(name=message_name)
        for name, number in numbers.items():
            field = one.field.add(name=name, number=number, type=field_type.TYPE_STRING)
            repeated = name in ("file_descriptor_proto", "service") or (
                message_name == "ExtensionNumberResponse" and name == "extension_number"
            )
            field.label = field_type.LABEL_REPEATED if repeated else field_type.LABEL_OPTIONAL
            if name in kinds:
                field.type = field_type.TYPE_MESSAGE
                field.type_name = f".{package}.{kinds[name]}"
            elif name in ("extension_number", "error_code"):
                field.type = field_type.TYPE_INT32
            elif name == "file_descriptor_proto":
                field.type = field_type.TYPE_BYTES
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())

    def message_class(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))

    path = f"/{package}.ServerReflection/ServerReflectionInfo"
    request, response = "ServerReflectionRequest", "ServerReflectionResponse"
    return Messages(message_class(request), message_class(response), path)


def files(answer: Any) -> list[descriptor_pb2.FileDescriptorProto]:
    parse = descriptor_pb2.FileDescriptorProto.FromString
    return [parse(one) for one in answer.file_descriptor_response.file_descriptor_proto]


@pytest.mark.parametrize("package", PACKAGES)
async def test_reflection_answers_each_request_as_it_comes(package: str, tmp_path: Path) -> None:
    of = messages_of(package)
    async with serving(tmp_path) as served, connected(served) as channel:
        stream = of.open(channel)

        async def ask(**asked: Any) -> Any:
            request = of.request(**asked)
            await stream.write(request)
            answer = await stream.read()
            assert answer.original_request == request
            return answer

        listed = await ask(list_services="*")
        assert [one.name for one in listed.list_services_response.service] == [
            *("grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"),
            *("grpc.reflection.v1alpha.ServerReflection", "v1alpha.NetUtil"),
        ]
        by_symbol = files(await ask(file_containing_symbol=NETUTIL))
        assert [one.name for one in by_symbol[0].service] == ["NetUtil"]
        assert files(await ask(file_by_filename=by_symbol[0].name)) == by_symbol
        for unknown in ({"file_containing_symbol": f"{NETUTIL}.No"}, {"file_by_filename": "no"}):
            assert (await ask(**unknown)).error_response.error_code == 5
        extension = {"containing_type": f"{NETUTIL}.No", "extension_number": 1}
        assert (await ask(file_containing_extension=extension)).error_response.error_code == 5
        assert (await ask(all_extension_numbers_of_type="no")).error_response.error_code == 5
        options = "google.protobuf.MethodOptions"
        numbers = await ask(all_extension_numbers_of_type=options)
        assert numbers.all_extension_numbers_response.base_type_name == options
        assert (await ask()).error_response.error_code == 3
        assert files(await ask(file_containing_symbol=f"{NETUTIL}.GetPod")) == by_symbol
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("package", PACKAGES)
async def test_reflection_answers_what_was_sent_before_the_half_close(
    package: str, tmp_path: Path
) -> None:
    of = messages_of(package)
    requests = [of.request(host=str(number), list_services="*") for number in range(50)]
    async with serving(tmp_path) as served:

        def ask() -> list[str]:
            with grpc.insecure_channel(f"unix:{served.path}") as channel:
                call = channel.stream_stream(
                    of.path, of.request.SerializeToString, of.response.FromString
                )
                answers = call(iter(requests), timeout=_SECONDS)
                return [answer.original_request.host for answer in answers]

        assert await asyncio.to_thread(ask) == [str(number) for number in range(50)]


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_cancelled_reflection_ends_alone(package: str, tmp_path: Path) -> None:
    of = messages_of(package)
    async with serving(tmp_path) as served, connected(served) as channel:
        stream, other = of.open(channel), of.open(channel)
        for one in (stream, other):
            await one.write(of.request(list_services="*"))
            assert (await one.read()).HasField("list_services_response")
        stream.cancel()
        await other.write(of.request(list_services="*"))
        assert (await other.read()).HasField("list_services_response")
        await other.done_writing()
        assert await other.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("package", PACKAGES)
async def test_reflection_describes_itself(package: str, tmp_path: Path) -> None:
    of = messages_of(package)
    service = f"{package}.ServerReflection"
    async with serving(tmp_path) as served, connected(served) as channel:
        stream = of.open(channel)
        await stream.write(of.request(file_containing_symbol=service))
        (file,) = files(await stream.read())
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
    assert file.package == package
    described = {
        one.name: {field.name: field.number for field in one.field} for one in file.message_type
    }
    assert described == FIELDS
    (method,) = file.service[0].method
    assert method.client_streaming and method.server_streaming
    assert method.input_type == f".{package}.ServerReflectionRequest"
    assert method.output_type == f".{package}.ServerReflectionResponse"


@pytest.mark.parametrize("package", PACKAGES)
async def test_a_client_that_knows_no_message_calls_by_reflection(
    package: str, tmp_path: Path
) -> None:
    of = messages_of(package)
    async with serving(tmp_path) as served, connected(served) as channel:
        stream = of.open(channel)
        await stream.write(of.request(file_containing_symbol=standard_services.HEALTH))
        pool = descriptor_pool.DescriptorPool()
        for file in reversed(files(await stream.read())):
            pool.AddSerializedFile(file.SerializeToString())
        await stream.done_writing()
        method = pool.FindServiceByName(standard_services.HEALTH).methods_by_name["Check"]
        asked = message_factory.GetMessageClass(method.input_type)
        answered = message_factory.GetMessageClass(method.output_type)
        check: Any = channel.unary_unary(
            f"/{standard_services.HEALTH}/{method.name}",
            request_serializer=asked.SerializeToString,
            response_deserializer=answered.FromString,
        )
        assert (await check(asked(service=NETUTIL))).status == Answer.SERVING


def test_grpcio_reflection_has_no_v1_of_its_own() -> None:
    """Once it has, `standard_services` should serve that."""
    assert importlib.util.find_spec("grpc_reflection.v1") is None
