"""The check of the modules that mypyc compiles."""

from __future__ import annotations

import pytest

from scripts.compiled import faults, modules

FAULTS = {
    "one name for two classes": (
        "def f():\n"
        "    try: g()\n"
        "    except A as error: raise C from error\n"
        "    except B as error: raise D from error\n",
        [(4, "error is A before, and B here")],
    ),
    "a wait in a finally": (
        "async def f():\n    try: await g()\n    finally:\n        if h: await h()\n",
        [(4, "waits in an except or a finally")],
    ),
    "a wait in an except": (
        "async def f():\n    try: g()\n    except A: await h()\n",
        [(3, "waits in an except or a finally")],
    ),
    "an asynchronous with": (
        "async def f():\n    async with g() as h:\n        h()\n",
        [(2, "waits in an except or a finally")],
    ),
    "a wait in an except of a group": (
        "async def f():\n    try: g()\n    except* A: await h()\n",
        [(3, "waits in an except or a finally")],
    ),
    "a context manager that is a generator": (
        "def f():\n    try:\n        yield\n    finally: h()\n",
        [(3, "yields before a finally")],
    ),
    "a generator that yields in a with": (
        "def f():\n    with g():\n        yield 1\n",
        [(3, "yields before a finally")],
    ),
    "a generator that yields in an except": (
        "def f():\n    try: g()\n    except A:\n        yield\n",
        [(4, "waits in an except or a finally")],
    ),
}
SOUND = {
    "names of their own": (
        "def f():\n"
        "    try: g()\n"
        "    except A as error: raise C from error\n"
        "    except B as other: raise D from other\n"
    ),
    "the same class twice": (
        "def f():\n"
        "    try: g()\n"
        "    except A as error: h(error)\n"
        "    try: g()\n"
        "    except A as error: h(error)\n"
    ),
    "a wait in the body": "async def f():\n    try: await g()\n    finally: h()\n",
    "a function within a handler": (
        "def f():\n    try: g()\n    except A:\n        async def h(): await g()\n"
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_has_its_line(case: str) -> None:
    source, expected = FAULTS[case]
    assert faults(source) == expected


@pytest.mark.parametrize("case", SOUND)
def test_other_code_has_no_fault(case: str) -> None:
    assert faults(SOUND[case]) == []


def test_the_modules_that_are_compiled_have_no_fault() -> None:
    assert len(modules()) > 1
    for path in modules():
        assert faults(path.read_text(encoding="utf-8")) == [], path
