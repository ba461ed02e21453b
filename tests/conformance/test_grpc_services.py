"""GRPC.md 6.5 and 6.6: grpcio's own servicers, unmodified, with raw frames."""

from __future__ import annotations

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import _async as reflection
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from netutil.agent.grpcserver import frames as f

from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.grpcserver.requests import block, headers
from tests.support.http2 import message

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NOT_FOUND = 5


def with_health(bench: Bench) -> HealthServicer:
    servicer = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, bench.server)
    return servicer


def about(service: str) -> bytes:
    return message(health_pb2.HealthCheckRequest(service=service).SerializeToString())


async def next_status(client: RawClient, stream: int) -> int:
    data = (await client.until(f.DATA, stream)).payload
    return int(health_pb2.HealthCheckResponse.FromString(data[5:]).status)


async def test_health_reports_a_service_and_rejects_an_unknown_one() -> None:
    async with serving() as bench:
        servicer = with_health(bench)
        await servicer.set("known", health_pb2.HealthCheckResponse.SERVING)
        client = await bench.connect()
        client.ask(1, about("known"), head=fields(p_path=CHECK))
        found, data = await client.answer(1)
        assert found["grpc-status"] == "0"
        assert health_pb2.HealthCheckResponse.FromString(data[5:]).status == 1
        client.ask(3, about("unknown"), head=fields(p_path=CHECK))
        assert (await client.answer(3))[0]["grpc-status"] == str(NOT_FOUND)


async def test_a_health_watch_waits_for_an_unknown_service() -> None:
    async with serving() as bench:
        servicer = with_health(bench)
        client = await bench.connect()
        client.ask(1, about("later"), head=fields(p_path=WATCH))
        states = health_pb2.HealthCheckResponse
        assert await next_status(client, 1) == states.SERVICE_UNKNOWN
        await servicer.set("later", states.SERVING)
        assert await next_status(client, 1) == states.SERVING
        await servicer.set("later", states.NOT_SERVING)
        assert await next_status(client, 1) == states.NOT_SERVING
        client.send(f.rst_stream(1, 8))
        await client.lives(3)


async def test_reflection_answers_each_request_until_the_half_close() -> None:
    request, response = (
        reflection_pb2.ServerReflectionRequest,
        reflection_pb2.ServerReflectionResponse,
    )
    async with serving() as bench:
        servicer = reflection.ReflectionServicer(["grpc.health.v1.Health"])
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, bench.server)
        client = await bench.connect()
        client.send(headers(1, block(p_path=REFLECT)))

        async def ask(sent: reflection_pb2.ServerReflectionRequest) -> str:
            client.send(f.frame(f.DATA, 0, 1, message(sent.SerializeToString())))
            data = (await client.until(f.DATA, 1)).payload
            answer = response.FromString(data[5:])
            if answer.HasField("error_response"):
                return str(answer.error_response.error_code)
            return str(answer.WhichOneof("message_response"))

        assert await ask(request(list_services="")) == "list_services_response"
        assert await ask(request(file_containing_symbol="no.such")) == str(NOT_FOUND)
        symbol = request(file_containing_symbol="grpc.health.v1.Health")
        assert await ask(symbol) == "file_descriptor_response"
        client.send(f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
