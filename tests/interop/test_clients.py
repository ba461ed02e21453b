"""The answers of the server to each gRPC client. `cases.py` has the cases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop import cases
from tests.interop.programs import Program
from tests.interop.server import ENVIRONMENT_BYTES, POD_NAME, SENTENCE
from tests.interop.serving import ServerProcess, serving

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, INTERNAL = 0, 1, 4, 5, 8, 13
AUTHORITIES = ("", "localhost", "localhost:80", "/path", "unix:/path", "path%2Fto.sock", "x.sock")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("interop") / "net.sock") as running:
        yield running


def result(client: Program, server: ServerProcess, case: str) -> dict[str, Any]:
    return client.run(client.command(str(server.path), case))


def test_a_call_is_answered_by_each_form_of_the_socket_s_name(
    client: Program, server: ServerProcess
) -> None:
    for form in client.targets:
        target = form.format(path=server.path)
        assert client.run(client.with_target(target, "unary")) == {"code": OK, "name": POD_NAME}


def test_a_call_is_answered_whatever_authority_the_client_sends(
    client: Program, server: ServerProcess
) -> None:
    for authority in AUTHORITIES:
        found = client.run(client.command(str(server.path), "unary", authority))
        assert found == {"code": OK, "name": POD_NAME}, authority


def test_an_error_brings_its_sentence_and_its_details(
    client: Program, server: ServerProcess
) -> None:
    assert result(client, server, "error") == {
        "code": NOT_FOUND,
        "message": SENTENCE,
        "reason": "VARIABLE_NOT_SET",
        "domain": "netutil",
    }


def test_an_answer_of_a_megabyte_comes_whole(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "large") == {"code": OK, "bytes": ENVIRONMENT_BYTES}


def test_requests_up_to_the_limit_succeed_and_larger_ones_fail(
    client: Program, server: ServerProcess
) -> None:
    found = result(client, server, "uploads")
    assert found == {"codes": {str(NOT_FOUND): 100, str(RESOURCE_EXHAUSTED): 10}, "then": OK}


def test_too_much_metadata_ends_its_own_call_alone(client: Program, server: ServerProcess) -> None:
    found = result(client, server, "large_metadata")
    # grpc-go itself refuses to send it, by what the server's SETTINGS say.
    wanted = INTERNAL if client.name == "grpc-go" else RESOURCE_EXHAUSTED
    assert found == {"code": wanted, "then": OK}


def test_pings_do_not_end_a_watch(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "keepalive") == {"code": CANCELLED, "then": OK}


def test_a_watch_that_is_cancelled_ends_on_both_sides(
    client: Program, server: ServerProcess
) -> None:
    found = result(client, server, "watch")
    assert found == {"name": POD_NAME, "code": CANCELLED, "then": OK}
    server.wait_for("OPEN_WATCHES", lambda count: count == 0)


def test_a_thousand_calls_at_once_are_all_answered(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "many") == {"codes": {str(OK): cases.MANY}}


def test_a_compressed_request_is_answered(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "gzip") == {"code": OK, "encoding": "gzip"}


def test_a_deadline_ends_a_watch_on_both_sides(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "deadline") == {"code": DEADLINE_EXCEEDED}
    server.wait_for("OPEN_WATCHES", lambda count: count == 0)


def test_metadata_goes_both_ways_text_and_bytes(client: Program, server: ServerProcess) -> None:
    (_, text), (_, raw) = cases.ECHO
    assert isinstance(raw, bytes)
    echo = {"text": text, "bytes": raw.hex()}
    found = result(client, server, "metadata")
    assert found == {"code": OK, "initial": echo, "trailing": echo}


def test_each_service_has_a_health_status(client: Program, server: ServerProcess) -> None:
    assert result(client, server, "health") == {"codes": [OK, OK, NOT_FOUND], "statuses": [1, 1]}


def test_a_client_that_is_killed_leaves_no_call_behind(
    client: Program, server: ServerProcess
) -> None:
    watching = client.start(client.command(str(server.path), "ended"))
    assert watching.stdout is not None and watching.stdout.readline() == "watching\n"
    assert server.variable("OPEN_WATCHES") == 1
    watching.kill()
    watching.communicate()
    server.wait_for("OPEN_WATCHES", lambda count: count == 0)
