"""The clients, each built once."""

from __future__ import annotations

import pytest

from tests.interop.programs import PROGRAMS, Program, program


@pytest.fixture(scope="session", params=PROGRAMS)
def client(request: pytest.FixtureRequest) -> Program:
    return program(request.param)
