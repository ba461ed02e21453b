"""The PIDs that a request may have."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.stage import USER, Stage, stage
from tests.support.lab import LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.nodes.client_driver import (
    POD_CLIENT,
    SECRET,
    Call,
    Outcomes,
    asked,
    assert_nothing_leaked,
    everything_of,
    task,
)

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-identity-pids")]
MALFORMED = ("INVALID_ARGUMENT", "PID_MALFORMED")
NOT_FOUND = ("NOT_FOUND", "PID_NOT_FOUND")
OUTSIDE = ("PERMISSION_DENIED", "PID_OUTSIDE_POD")
NOT_READABLE = ("PERMISSION_DENIED", "ENVIRONMENT_NOT_READABLE")
MAX_MESSAGE = 64 * 1024
TAG_AND_LENGTH = 4

NO_NUMBERS = {
    "0": "zero",
    "-1": "minus one",
    str(2**63): "2^63",
    str(2**64 + 1): "1, past 64 bits",
    str(2**32 + 1): "1, past 32 bits",
    str(2**22 + 1): "past the kernel's largest pid",
    "\uff11\uff12": "wide digits",
    "\u0661": "an Arabic-Indic digit",
    "1²": "a superscript digit",
    "+1": "a sign",
    " 1": "a blank before",
    "1 ": "a blank behind",
    "1\n": "a line's end",
    "1\0": "a NUL",
    "0x1": "hexadecimal",
    "1_0": "as Python writes it",
    "1e0": "as a float",
    "1.0": "with a point",
    "self": "a name below /proc",
    "../1": "a path",
    "1/task/1": "a thread's path",
    "00000001": "more zeros than a pid has digits",
}
"""And why each is none."""


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


def asked_with_host_pid(on: Stage, container: LabContainer, *calls: Call) -> Outcomes:
    """Ask from a process of the container's pod that sees the node's processes (hostPID)."""
    files = [str(directory / "cgroup.procs") for directory in container.cgroups]
    enter = f"for file in {files!r}: open(file, 'w').write('0')"
    done = subprocess.run(
        [sys.executable, POD_CLIENT],
        input=task(calls, before=enter, socket=str(on.lab.socket)),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Outcomes.from_output(done.stdout)


def test_an_invalid_pid_is_refused_and_named(on: Stage) -> None:
    calls: list[Call] = [("GetEnv", {"pid": pid}) for pid in NO_NUMBERS]
    got = asked(on.hostile, *calls)
    refusals = dict(zip(NO_NUMBERS.values(), (one.refusal for one in got.calls), strict=True))
    assert refusals == dict.fromkeys(NO_NUMBERS.values(), MALFORMED)
    assert_nothing_leaked(got)


def test_every_method_refuses_what_is_no_pid(on: Stage) -> None:
    got = asked(on.hostile, *everything_of("\uff11")[:-1])
    assert got.refusals() == {MALFORMED}


def test_leading_zeros_name_the_same_process(on: Stage) -> None:
    got = asked(on.hostile, ("GetEnv", {"pid": "0000001"}))
    assert got.calls[0].answer["envs"]["WHO"] == "hostile"


def test_digits_at_and_past_the_message_limit(on: Stage) -> None:
    most = MAX_MESSAGE - TAG_AND_LENGTH
    calls: list[Call] = [("GetEnv", {"pid": "1" * length}) for length in (most + 1, most, 1)]
    got = asked(on.hostile, *calls)
    too_large, largest, proper = got.calls
    assert too_large.code == "RESOURCE_EXHAUSTED"
    assert largest.refusal == MALFORMED
    assert len(largest.sentence) < 100
    assert proper.code == "OK"


def test_a_mebibyte_of_digits_is_past_the_limit_of_a_request(on: Stage) -> None:
    got = asked(on.hostile, ("GetEnv", {"pid": "1" * 1024 * 1024}))
    assert got.calls[0].refusal == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
    assert asked(on.hostile, ("GetEnv", {})).calls[0].answer["envs"]["WHO"] == "hostile"


def test_a_process_of_another_pod_is_not_found_by_any_number(on: Stage) -> None:
    numbers = (on.victim.pid, inside_pid(on.victim.pid) + 4000, os.getpid())
    calls = [call for number in numbers for call in everything_of(number)[:-1]]
    got = asked(on.hostile, *calls)
    assert got.refusals() == {NOT_FOUND}
    assert_nothing_leaked(got)


def test_a_host_pid_pod_is_refused_others_processes(on: Stage) -> None:
    """The processes are of another pod, the host, the kernel, and the agent itself."""
    assert (Path("/proc/2/comm")).read_text() == "kthreadd\n"
    numbers = (on.victim.pid, os.getpid(), 1, 2, on.agent.pid)
    calls = [call for number in numbers for call in everything_of(number)[:-1]]
    got = asked_with_host_pid(on, on.hostile, *calls)
    assert got.refusals() == {OUTSIDE}
    assert_nothing_leaked(got)


def test_a_thread_that_is_no_process_is_not_found(on: Stage) -> None:
    """/proc/<thread id> can be opened, though it is not listed: it must not be taken."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert Path(f"/proc/{thread.native_id}/environ").exists()
        got = asked_with_host_pid(on, on.hostile, *everything_of(thread.native_id or 0)[:-1])
    finally:
        done.set()
        thread.join()
    assert got.refusals() == {NOT_FOUND}


DEAD_AND_THREADED = """
import threading
zombie = os.fork()
if zombie == 0:
    os._exit(0)
while ") Z " not in open(f"/proc/{zombie}/stat").read():
    time.sleep(0.01)
thread = threading.Thread(target=threading.Event().wait, daemon=True)
thread.start()
numbers = [zombie, thread.native_id, 2]
task["calls"] = [[m, {**f, "pid": str(n)}] for n in numbers for m, f in task["calls"]]
"""


def test_a_zombie_and_a_thread_of_the_callers_own_are_not_found(on: Stage) -> None:
    """And 2, which on the host is a kernel thread, is no process in here."""
    calls = everything_of("")[:-1]
    got = asked(on.hostile, *calls, between=DEAD_AND_THREADED)
    assert len(got.calls) == 3 * len(calls)
    assert got.refusals() == {NOT_FOUND}


def test_another_containers_user_keeps_its_environment_private(on: Stage) -> None:
    """In the same pod and PID namespace: all but the environment is the pod's."""
    pod = on.lab.pod("shared", share_process_namespace=True)
    one = pod.container("one", env={"WHO": "one"})
    other = pod.container("other", env={"PCIDEVICE_PASSWORD": SECRET}, uid=USER, gid=USER)
    on.lab.write_pod_list()
    got = asked(one, *everything_of(other.pid_inside))
    env, cpu, network, interfaces, hugepages, pod_answer, everything = got.calls
    assert env.refusal == NOT_READABLE
    assert {one.code for one in (cpu, network, hugepages)} == {"OK"}
    assert interfaces.answer["allocated_error"]["reason"] == NOT_READABLE[1]
    assert pod_answer.answer["container_name"] == "other"
    assert "environment" in {error["part"] for error in everything.answer["errors"]}
    assert_nothing_leaked(got)
