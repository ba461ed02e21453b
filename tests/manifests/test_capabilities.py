"""Each of the agent's operations needs a capability, found by making the system calls."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.manifests.deployment import RUNTIME_DEFAULT
from tests.support.manifests.privileges import hardened_capabilities, mask, with_capabilities
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("capabilities")]

NEEDED_BY = {
    "SYS_PTRACE": {
        *(f"environ of {kind}" for kind in ("user", "hidden", "root")),
        *(f"ns of {kind}" for kind in ("user", "hidden", "root")),
        *("NS_GET_PARENT", "ask as user"),
    },
    "DAC_READ_SEARCH": {"environ of user"},
    "SETUID": {"ask as user"},
    "SETGID": {"ask as user"},
}
WAITING = ("sh", "-c", "echo ready; read forever")
HIDDEN = (
    sys.executable,
    "-c",
    "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0); print('ready', flush=True); input()",
)
AS_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


class Subjects:
    """Processes of several kinds, and a program that does to them what the agent does."""

    def __init__(self, given: dict[str, str]) -> None:
        self._given = given

    def failed(self, *capabilities: str) -> set[str]:
        """The calls that fail for root with these capabilities and no others."""
        done = subprocess.run(
            [
                *with_capabilities(*capabilities),
                *(sys.executable, "-m", "tests.manifests.capabilities", json.dumps(self._given)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["capabilities"] == mask(capabilities)
        return set(answer["failed"])


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subjects]:
    if os.geteuid() != 0:
        pytest.skip("needs root: processes of other users")
    directory = tmp_path_factory.mktemp("run")
    kinds: dict[str, tuple[str, ...]] = {
        "user": (*AS_USER, *WAITING),
        "user's other": (*AS_USER, *WAITING),
        "hidden": (*AS_USER, *HIDDEN),
        "root": (*with_capabilities(*RUNTIME_DEFAULT), *WAITING),
        "root's other": (*with_capabilities(*RUNTIME_DEFAULT), *WAITING),
        "bare": (*with_capabilities(), *WAITING),
        "bare's other": (*with_capabilities(), *WAITING),
        "nested": ("unshare", "--pid", "--fork", "--kill-child", *WAITING),
    }
    with ExitStack() as stack:
        given = {"directory": str(directory), "socket": str(directory / "root.sock")}
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(given["socket"])
        Path(given["socket"]).chmod(0o600)
        listener.listen()
        for name, argv in kinds.items():
            process = stack.enter_context(
                subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            number = process.pid
            if name == "nested":
                children = Path(f"/proc/{number}/task/{number}/children")
                (number,) = map(int, children.read_text(encoding="ascii").split())
            given[name] = str(number)
        yield Subjects(given)


def test_those_of_the_manifest_are_enough(subjects: Subjects) -> None:
    assert subjects.failed(*hardened_capabilities()) == {"ask as root"}


def test_each_of_them_is_tried() -> None:
    assert set(NEEDED_BY) == hardened_capabilities()


@pytest.mark.parametrize("missing", NEEDED_BY)
def test_none_of_them_can_be_left_out(subjects: Subjects, missing: str) -> None:
    left = hardened_capabilities() - {missing}
    assert subjects.failed(*left) - {"ask as root"} == NEEDED_BY[missing]


def test_everything_else_needs_no_capability(subjects: Subjects) -> None:
    assert subjects.failed() == {*NEEDED_BY["SYS_PTRACE"], "ask as root"}


def test_a_caller_is_answered_if_the_agent_has_its_capabilities(
    subjects: Subjects,
) -> None:
    everything = {*hardened_capabilities(), *RUNTIME_DEFAULT}
    assert subjects.failed(*everything) == set()
