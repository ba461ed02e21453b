"""The answers of the agent to each gRPC client, from inside a pod."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop import cases
from tests.interop.programs import Program
from tests.interop.server import ENVIRONMENT, ENVIRONMENT_BYTES, POD_NAME
from tests.support.http2 import SOCKET
from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.repository import ROOT

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED = 0, 1, 4, 5, 8
pytestmark = [pytest.mark.root, needs_lab]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture
def app(lab: Lab) -> LabContainer:
    container = lab.pod(POD_NAME).container("app")
    lab.agent()
    return container


def environment(client: Program) -> dict[str, str]:
    """Return the variables that a client needs in a pod, and 1 MB of others."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **client.environment} | ENVIRONMENT


def result(client: Program, app: LabContainer, case: str) -> dict[str, Any]:
    done = app.run(client.command(SOCKET, case), env=environment(client), timeout=90)
    assert done.returncode == 0, done.stderr
    return client.result(done.stdout.decode())


def test_each_case_is_answered_as_grpc_has_it(client: Program, app: LabContainer) -> None:
    assert result(client, app, "unary") == {"code": OK, "name": POD_NAME}
    error = result(client, app, "error")
    assert (error["code"], error["domain"]) == (NOT_FOUND, "netutil")
    assert error["reason"] == "VARIABLE_NOT_SET"
    large = result(client, app, "large")
    assert large["code"] == OK and large["bytes"] > ENVIRONMENT_BYTES
    assert result(client, app, "many") == {"codes": {str(OK): cases.MANY}}
    watch = result(client, app, "watch")
    assert watch == {"name": POD_NAME, "code": CANCELLED, "then": OK}
    assert result(client, app, "deadline") == {"code": DEADLINE_EXCEEDED}
    health = result(client, app, "health")
    assert health == {"codes": [OK, OK, NOT_FOUND], "statuses": [1, 1]}
    uploads = {str(NOT_FOUND): 100, str(RESOURCE_EXHAUSTED): 10}
    assert result(client, app, "uploads") == {"codes": uploads, "then": OK}


def test_no_call_fails_while_another_agent_takes_over(
    client: Program, app: LabContainer, lab: Lab
) -> None:
    command = client.command(SOCKET, "load")
    calling = app.spawn(command, env=environment(client), stdin=subprocess.PIPE)
    assert calling.stdout is not None and calling.stdout.readline() == b"calling\n"
    for _ in range(2):
        lab.agent()
        assert lab.agents[-2].stop() == 0
    output, errors = calling.communicate(timeout=60)
    assert calling.returncode == 0, errors
    found = client.result(output.decode())
    assert list(found["codes"]) == [str(OK)], found["errors"][:3]
