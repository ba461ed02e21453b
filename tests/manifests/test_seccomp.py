"""The hardened variant's seccomp profile: what the agent needs passes, what is dangerous does not.

Tried by system calls of a process under the very profile, loaded by libseccomp as runc loads it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.manifests import seccomp
from tests.support.manifests.privileges import (
    hardened_capabilities,
    profile,
    under_seccomp,
    with_capabilities,
)
from tests.support.repository import ROOT

needs_libseccomp = pytest.mark.skipif(
    ctypes.util.find_library("seccomp") is None, reason="needs libseccomp2"
)
pytestmark = [pytest.mark.root, needs_libseccomp, pytest.mark.xdist_group("seccomp")]

# What would take over another process, the kernel, or files, whatever capabilities there are.
DANGEROUS = frozenset(
    (
        *("bpf", "chroot", "delete_module", "execveat", "finit_module", "fsopen", "init_module"),
        *("io_uring_enter", "io_uring_register", "io_uring_setup", "kcmp", "kexec_file_load"),
        *("kexec_load", "keyctl", "kill", "mknodat", "mount", "mount_setattr", "move_mount"),
        *("name_to_handle_at", "open_by_handle_at", "open_tree", "perf_event_open"),
        *("pidfd_getfd", "pidfd_send_signal", "pivot_root", "process_vm_readv"),
        *("process_vm_writev", "ptrace", "reboot", "setns", "setresuid", "swapon", "syslog"),
        *("umount2", "unshare", "userfaultfd"),
    )
)
PROGRAM = """
import ctypes, errno, json, os, sys
call = ctypes.CDLL(None, use_errno=True).syscall
answers = {}
for name, number in json.loads(sys.argv[1]).items():
    done = call(number, -1, -1, -1, -1, -1, -1)
    answers[name] = errno.errorcode[ctypes.get_errno()] if done == -1 else "done"
print(json.dumps(answers))
"""
"""Makes each system call with arguments that no kernel takes: only a filter says EPERM at once."""


def run(*argv: str, confined: bool = True) -> subprocess.CompletedProcess[str]:
    """A command with the capabilities of the variant, and by default its profile."""
    return subprocess.run(
        [
            *with_capabilities(*hardened_capabilities()),
            *(under_seccomp() if confined else ()),
            *argv,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def python(code: str) -> str:
    done = run(sys.executable, "-I", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def names(action: str) -> list[str]:
    return [
        name for rule in profile()["syscalls"] if rule["action"] == action for name in rule["names"]
    ]


def test_it_names_only_what_there_is() -> None:
    for rule in profile()["syscalls"]:
        for name in rule["names"]:
            # Newer than Debian 12's libseccomp 2.5.4; runtimes pass over what theirs does not know.
            if name not in ("futex_wait", "futex_wake", "futex_requeue"):
                assert seccomp.number_of(name) != -1, name


def test_unnamed_calls_are_refused_on_both_architectures() -> None:
    assert profile()["defaultAction"] == "SCMP_ACT_ERRNO"
    # glibc and Python take ENOSYS for an old kernel, and do without; EPERM they may not survive.
    assert profile()["defaultErrnoRet"] == errno.ENOSYS
    assert profile()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    assert {rule["action"] for rule in profile()["syscalls"]} == {
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
    }


def test_only_socket_and_clone_are_listed_twice() -> None:
    allowed, refused = names("SCMP_ACT_ALLOW"), names("SCMP_ACT_ERRNO")
    assert set(allowed) & set(refused) == {"clone"}
    assert {name for name in allowed if allowed.count(name) > 1} == {"socket"}
    assert not DANGEROUS & set(allowed)


def test_every_dangerous_call_is_refused_even_to_full_root() -> None:
    numbers = json.dumps({name: seccomp.number_of(name) for name in sorted(DANGEROUS)})
    done = subprocess.run(
        ["setpriv", "--no-new-privs", *under_seccomp(), sys.executable, "-c", PROGRAM, numbers],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout) == dict.fromkeys(DANGEROUS, "EPERM"), done.stderr


def test_the_capabilities_alone_would_not_refuse_them() -> None:
    open_to_them = ("open_by_handle_at", "process_vm_readv", "pidfd_getfd", "kcmp", "setresuid")
    numbers = json.dumps({name: seccomp.number_of(name) for name in open_to_them})
    done = run(sys.executable, "-I", "-c", PROGRAM, numbers, confined=False)
    assert "EPERM" not in json.loads(done.stdout).values(), done.stdout


@pytest.fixture
def victim() -> Iterator[int]:
    """A process of root that is not the agent's."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_another_process_is_neither_traced_nor_signalled(victim: int) -> None:
    attach, kill = seccomp.number_of("ptrace"), seccomp.number_of("kill")
    code = (
        "import ctypes; call = ctypes.CDLL(None, use_errno=True).syscall; "
        f"print(call({attach}, 16, {victim}, 0, 0), call({kill}, {victim}, 9), ctypes.get_errno())"
    )
    assert python(code) == f"-1 -1 {errno.EPERM}"
    assert Path(f"/proc/{victim}/status").read_text(encoding="utf-8").count("TracerPid:\t0") == 1


def test_threads_can_be_started_and_processes_cannot() -> None:
    assert (
        python("import threading as t; a = t.Thread(target=print, args=('ran',)); a.start()")
        == "ran"
    )
    for start in (
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.system('true') and 1/0",
    ):
        done = run(sys.executable, "-I", "-c", f"import os; {start}")
        assert done.returncode != 0, start


@pytest.mark.parametrize(
    ("family", "protocol", "made"),
    [
        ("AF_UNIX", 0, True),
        ("AF_INET", 0, True),
        ("AF_INET6", 0, True),
        ("AF_NETLINK", 0, True),
        ("AF_NETLINK", 12, False),  # NETLINK_NETFILTER
        ("AF_PACKET", 0, False),
        ("AF_VSOCK", 0, False),
        ("AF_ALG", 0, False),
    ],
)
def test_sockets_are_made_only_of_the_agents_families(
    family: str, protocol: int, made: bool
) -> None:
    kind = {"AF_NETLINK": "SOCK_RAW", "AF_ALG": "SOCK_SEQPACKET"}.get(family, "SOCK_STREAM")
    code = (
        "import socket as s\ntry: s.socket(s.{}, s.{}, {}); print('made')\n"
        "except OSError as error: print(error.errno)"
    )
    said = python(code.format(family, kind, protocol))
    assert said == ("made" if made else str(errno.ENOSYS))


def test_a_process_may_set_a_limit_only_for_itself(victim: int) -> None:
    code = "import resource as r; print(r.prlimit({}, r.RLIMIT_NOFILE) != ())"
    assert python(code.format(0)) == "True"
    done = run(sys.executable, "-I", "-c", code.format(victim))
    assert "Function not implemented" in done.stderr


def test_documented_refusals_are_refused() -> None:
    """The calls that docs/install.md names in the section on the profile."""
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^### The seccomp profile$(.*?)^##", text, re.M | re.S)
    documented = set(re.findall(r"`([a-z_0-9]+)\(2\)`", section))
    assert len(documented) > 10
    assert documented <= set(names("SCMP_ACT_ERRNO"))


def test_it_needs_no_privilege_to_be_loaded() -> None:
    status = run("cat", "/proc/self/status").stdout
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)
