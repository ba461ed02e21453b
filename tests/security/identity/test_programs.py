"""Programs of one pod under other ids: setuid, sudo, user namespaces. None reads more."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.stage import USER, Stage, setuid_python, stage
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.nodes.client_driver import SECRET, Call, asked, assert_nothing_leaked
from tests.support.processes import become

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-identity-programs")]
OTHER = 23456
QUESTIONS: tuple[Call, ...] = (("GetEnv", {}), ("GetInterfaces", {}), ("GetAll", {}))
AS_USER = become(USER, USER)
IDS = (
    f"os.setgroups([]); os.setresgid({USER}, {USER}, {USER}); os.setresuid({USER}, {USER}, {USER})"
)
NOT_READABLE = ("PERMISSION_DENIED", "ENVIRONMENT_NOT_READABLE")

ANOTHER_PROGRAM = """
ends, held = os.pipe()
connector = os.getpid()
if os.fork():
    os.close(held)
    os.dup2(ends, 0)  # it ends with the child, which goes on with the connection
    os.execv({program!r}, [{program!r}, "-I", "-S", "-c", {script!r}])
os.close(ends)
while open(f"/proc/{{connector}}/comm").read() != "cat\\n":
    time.sleep(0.01)
"""
AS_OTHER = """
import os
os.setresuid({other}, {other}, {other})
os.execve("/bin/cat", ["cat"], {{"PASSWORD": {secret!r}}})
"""


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


def becoming(on: Stage, script: str) -> str:
    """Let the connector become a setuid program that runs a script; its child keeps the socket."""
    return ANOTHER_PROGRAM.format(program=str(setuid_python(on.lab)), script=script)


def test_a_connector_that_changed_its_user_gives_no_environment(
    on: Stage,
) -> None:
    """As `sudo -u app` does, with an environment that only root can read."""
    script = AS_OTHER.format(other=OTHER, secret=SECRET)
    got = asked(on.hostile, *QUESTIONS, before=AS_USER, between=becoming(on, script))
    env, interfaces, everything = got.calls
    assert env.refusal == NOT_READABLE
    assert interfaces.answer["allocated_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
    (error,) = [e for e in everything.answer["errors"] if e["part"] == "environment"]
    assert error["reason"] == "ENVIRONMENT_NOT_READABLE"
    assert_nothing_leaked(got)


def test_a_connector_with_new_ids_reads_no_process_for_its_child(on: Stage) -> None:
    """The ids of sudo's child are the victim's; those of the connection are not."""
    with on.hostile.spawn(
        ["cat"], env={"PASSWORD": SECRET}, uid=OTHER, gid=USER, stdin=subprocess.PIPE
    ) as other:
        script = AS_OTHER.format(other=OTHER, secret="its own")  # noqa: S106
        # The test reads the inner pid from the host's /proc, an attacker from /proc inside.
        number = str(inside_pid(other.host_pid))
        got = asked(
            on.hostile, ("GetEnv", {"pid": number}), before=AS_USER, between=becoming(on, script)
        )
        assert got.calls[0].refusal == NOT_READABLE
        assert_nothing_leaked(got)
        other.kill()


def test_a_setuid_program_is_not_read_by_its_user(on: Stage) -> None:
    """Real user id the caller's, effective one root's: what it holds is not the caller's."""
    program = str(setuid_python(on.lab))
    argv = [program, "-I", "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with on.hostile.spawn(
        argv, env={"PASSWORD": SECRET}, uid=USER, gid=USER, stdin=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        assert "Uid:\t12345\t0\t0\t0" in Path(f"/proc/{other.host_pid}/status").read_text()
        questions = tuple(
            (method, {"pid": str(inside_pid(other.host_pid))})
            for method in ("GetEnv", "GetInterfaces", "GetAll")
        )
        for before in (AS_USER, ""):  # its user, and a root who is not just it
            got = asked(on.hostile, *questions, before=before)
            assert got.calls[0].refusal == NOT_READABLE
            assert got.calls[1].answer["allocated_error"]["reason"] == NOT_READABLE[1]
            assert_nothing_leaked(got)
        other.kill()


def test_a_setuid_program_opens_no_way_to_roots_environments(on: Stage) -> None:
    """It connects with root's effective id; its real one is the user's, and the kernel is asked."""
    with on.hostile.spawn(["cat"], env={"PASSWORD": SECRET}, stdin=subprocess.PIPE) as other:
        number = str(inside_pid(other.host_pid))
        setuid = f"os.setresuid({USER}, 0, 0)"
        got = asked(on.hostile, ("GetEnv", {"pid": number}), ("GetEnv", {}), before=setuid)
        assert [one.refusal for one in got.calls] == [NOT_READABLE, ("OK", "")]
        assert got.calls[1].answer["envs"]["WHO"] == "hostile"
        assert_nothing_leaked(got)
        other.kill()


USER_NAMESPACE = """
libc = ctypes.CDLL(None, use_errno=True)
def enter_user_namespace():
    # Made by root, as a runtime makes that of a pod with hostUsers: false.
    ready, go = os.pipe(), os.pipe()
    maker = os.fork()
    if maker == 0:
        os.read(ready[0], 1)
        for kind in ("uid", "gid"):
            open(f"/proc/{os.getppid()}/{kind}_map", "w").write("0 100000 65536")
        os.write(go[1], b".")
        os._exit(0)
    assert libc.unshare(0x10000000) == 0, ctypes.get_errno()
    os.write(ready[1], b".")
    os.read(go[0], 1)
    os.setgroups([]); os.setresgid(0, 0, 0); os.setresuid(0, 0, 0)
    os.waitpid(maker, 0)
    assert libc.prctl(4, 1) == 0  # PR_SET_DUMPABLE: lost with the ids
"""
WITHOUT_CAPABILITIES = """
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0
libc.prctl(4, 1)
"""
NEIGHBOUR = """
lives, life = os.pipe()
neighbour = os.fork()
if neighbour == 0:
    os.close(life)
    os.dup2(lives, 0)
    {ids}
    os.execve("/bin/cat", ["cat"], {{"PASSWORD": {secret!r}}})
os.close(lives)
while open(f"/proc/{{neighbour}}/comm").read() != "cat\\n":
    time.sleep(0.01)
"""
TRY_BY_ITSELF = """
try:
    open(f"/proc/{neighbour}/environ", "rb").read()
except PermissionError:
    pass
else:
    raise AssertionError("the kernel lets the caller read it")
task["calls"] = [[method, {"pid": str(neighbour)}] for method, _ in task["calls"]]
"""


def test_a_user_namespaces_root_gains_nothing_from_the_agent(
    on: Stage,
) -> None:
    """The creator of a user namespace has every capability in it, and so has the agent, as root."""
    neighbour = NEIGHBOUR.format(ids="", secret=SECRET)  # with all capabilities in the namespace
    before = USER_NAMESPACE + "enter_user_namespace()\n" + neighbour + WITHOUT_CAPABILITIES
    got = asked(on.hostile, *QUESTIONS, before=before + TRY_BY_ITSELF)
    env, interfaces, _ = got.calls
    assert env.refusal == NOT_READABLE
    assert interfaces.answer["allocated_error"]["reason"] == NOT_READABLE[1]
    assert_nothing_leaked(got)


def test_a_user_namespaces_root_does_not_read_for_the_hosts_root(on: Stage) -> None:
    number = on.hostile.pid_inside
    root = f"neighbour = {number}\n"
    before = USER_NAMESPACE + "enter_user_namespace()\n" + root + TRY_BY_ITSELF
    got = asked(on.hostile, ("GetEnv", {}), before=before)
    assert got.calls[0].refusal == NOT_READABLE
    assert b"WHO" not in got.came


def test_a_user_in_a_user_namespace_does_not_read_its_outer_self(on: Stage) -> None:
    """A sandbox: the same uid on the host, but no way out of the namespace (bubblewrap)."""
    neighbour = NEIGHBOUR.format(ids=IDS, secret=SECRET)
    shut_in = "libc = ctypes.CDLL(None)\nassert libc.unshare(0x10000000) == 0\nlibc.prctl(4, 1)\n"
    got = asked(on.hostile, ("GetEnv", {}), before=neighbour + AS_USER + shut_in + TRY_BY_ITSELF)
    assert got.calls[0].refusal == NOT_READABLE
    assert_nothing_leaked(got)
