"""Starts one process of the lab: cgroups, namespaces, mounts, user, then the program.

Runs as a script of its own (`python -I -S launch.py serve|once …`) with the
standard library alone, so that nothing of the test process, its threads least
of all, is forked. Python 3.11 has neither unshare nor setns, hence ctypes.

Every process started here gets SIGKILL when the script that started it dies,
and the script ends when its owner does: a killed test run leaves no process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

# linux/sched.h
NEW_MOUNT = 0x00020000
NEW_CGROUP = 0x02000000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NETWORK = 0x40000000
# linux/prctl.h
_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36
# linux/mount.h
_NOSUID, _NODEV, _NOEXEC, _BIND, _MOVE, _REC, _PRIVATE = 2, 4, 8, 4096, 8192, 16384, 1 << 18
# Sent to `launch.py once` it kills what that started, as SIGKILL cannot be passed on.
KILL = signal.SIGRTMIN
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_STARTED = 127
_libc = ctypes.CDLL(None, use_errno=True)


class Launch(NamedTuple):
    """The program to start. Strings carry bytes as Latin-1, one character per byte.

    `cgroups` are cgroup.procs files, entered before anything else. `join` are
    namespaces (/proc/<pid>/ns/…), `unshare` the NEW_… flags of the new namespaces.
    `socket_directory` appears as /etc/netutil if a mount namespace is made.
    `output` is the file for stdout and stderr; None inherits all three.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cgroups: tuple[str, ...] = ()
    join: tuple[str, ...] = ()
    unshare: int = 0
    hostname: str | None = None
    socket_directory: str | None = None
    uid: int = 0
    gid: int = 0
    output: str | None = None

    def to_json(self) -> bytes:
        """The launch on one line."""
        return json.dumps(self._asdict()).encode() + b"\n"


def from_json(line: bytes) -> Launch:
    """The launch that `Launch.to_json` wrote."""
    fields: dict[str, Any] = json.loads(line)
    for name, value in fields.items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    return Launch(**fields)


def start(launch: Launch) -> int:
    """Start it and return its pid, once the program runs. Its parent is this process.

    RuntimeError with a sentence if it cannot be started. This process must be
    a child subreaper: what enters a PID namespace is a grandchild.
    """
    report, reporting = os.pipe()
    going, go = os.pipe()
    entering = os.fork()
    if entering == 0:
        os.close(go)
        _attempt(lambda: _enter(launch, reporting, going), reporting)
    os.close(reporting)
    os.close(going)
    with open(report, "rb") as lines, open(go, "wb", buffering=0) as may_go:
        first = lines.readline()
        os.waitpid(entering, 0)
        if first[:1].isdigit():
            # Only now, or the death of the process between would be taken for ours.
            may_go.write(b".")
        failure = (b"" if first[:1].isdigit() else first) + lines.read()
    if failure:
        if first[:1].isdigit():
            os.waitpid(int(first), 0)
        raise RuntimeError(f"cannot start {launch.argv[0]}: {failure.decode(errors='replace')}")
    return int(first)


def _attempt(what: Callable[[], None], reporting: int) -> NoReturn:
    try:
        what()
    except BaseException as error:  # noqa: BLE001 - a forked process must end here
        os.write(reporting, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(_NOT_STARTED)


def _enter(launch: Launch, reporting: int, going: int) -> None:
    for path in launch.cgroups:
        with open(path, "wb", buffering=0) as members:
            members.write(b"0")
    streams = _streams(launch.output)
    for namespace in [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in launch.join]:
        _check(_libc.setns(namespace, 0), "setns")
        os.close(namespace)
    if launch.unshare:
        _check(_libc.unshare(launch.unshare), "unshare")
    pid = os.fork()
    if pid == 0:
        _attempt(lambda: _become(launch, streams, going), reporting)
    os.write(reporting, b"%d\n" % pid)
    os._exit(0)


def _become(launch: Launch, streams: tuple[int, ...], going: int) -> None:
    if not os.read(going, 1):
        raise InterruptedError("the process that started it has exited")
    if launch.unshare & NEW_MOUNT:
        _mount("none", "/", None, _REC | _PRIVATE)
        if launch.socket_directory:
            _show_socket_directory(launch.socket_directory)
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    if launch.hostname:
        socket.sethostname(launch.hostname)
    if streams:
        os.setsid()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
    os.chdir("/")
    if (launch.uid, launch.gid) != (os.getuid(), os.getgid()):
        os.setgroups([])
        os.setgid(launch.gid)
        os.setuid(launch.uid)
    # After setuid, which clears it.
    _check(_libc.prctl(_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")
    # What the owner ignores (Python SIGPIPE, nohup SIGHUP, …), a program in a pod does not.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _execute(launch)


def _execute(launch: Launch) -> None:
    """Execute with exactly these entries: os.execve takes none without a "=", nor one twice."""
    path = next((e[5:] for e in launch.env if e.startswith("PATH=")), "") or _PATH
    program = launch.argv[0]
    candidates = [program] if "/" in program else [f"{d}/{program}" for d in path.split(":")]
    found = next((c for c in candidates if os.access(c.encode("latin-1"), os.X_OK)), program)
    argv = (ctypes.c_char_p * (len(launch.argv) + 1))(*_bytes(launch.argv), None)
    env = (ctypes.c_char_p * (len(launch.env) + 1))(*_bytes(launch.env), None)
    _libc.execve(found.encode("latin-1"), argv, env)
    _check(-1, found)


def _show_socket_directory(source: str) -> None:
    """Bind `source` at /etc/netutil without leaving that directory on the machine.

    Where there is none, a tmpfs covers /etc, in which every entry is a link to
    the covered one (or, if it is a link itself, its like).
    """
    target = "/etc/netutil"
    if not os.path.isdir(target):
        # It is built over `source` and moved from there: once covered, /etc has no name.
        links = {
            entry.name: os.readlink(entry.path) if entry.is_symlink() else f"/etc/.lab/{entry.name}"
            for entry in os.scandir("/etc")
        }
        _mount("tmpfs", source, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
        for directory in (".lab", "netutil"):
            os.mkdir(f"{source}/{directory}")
        for name, link in links.items():
            os.symlink(link, f"{source}/{name}")
        _mount("/etc", f"{source}/.lab", None, _BIND | _REC)
        _mount(source, "/etc", None, _MOVE)
    _mount(source, target, None, _BIND)


def _streams(output: str | None) -> tuple[int, ...]:
    if output is None:
        return ()
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    return (os.open(os.devnull, os.O_RDONLY), log, log)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if w is None else os.fsencode(w) for w in (source, target, kind, data)]
    done = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(done, f"mount {source} at {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _bytes(texts: tuple[str, ...]) -> list[bytes]:
    return [text.encode("latin-1") for text in texts]


def _serve(channel: socket.socket) -> None:
    """Start what each line asks for, answer with a pid or a complaint; end with the owner."""
    wake, waking = socket.socketpair()
    waking.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
    requests = channel.makefile("rb")
    started = set[int]()
    while True:
        ready, _, _ = select.select([channel, wake], [], [])
        if wake in ready:
            wake.recv(4096)
            started -= _reap(os.WNOHANG)
        if channel not in ready:
            continue
        line = requests.readline()
        if not line:
            break
        answer: dict[str, int | str]
        try:
            pid = start(from_json(line))
        except RuntimeError as error:
            answer = {"error": str(error)}
        else:
            started.add(pid)
            answer = {"pid": pid}
        channel.sendall(json.dumps(answer).encode() + b"\n")
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    _reap(0)


def _reap(options: int) -> set[int]:
    """Take note of ended processes: those that there are now, or with options 0 all."""
    ended = set[int]()
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, options)[0]:
            ended.add(pid)
    return ended


def _once(request: int, report: int, owner: int) -> int:
    """Start one process, report its pid on `report`, end as it does or when the owner exits."""
    for descriptor in (request, report, owner):
        os.set_inheritable(descriptor, False)
    with open(request, "rb") as file:
        file.seek(0)
        launch = from_json(file.read())
    with open(report, "wb") as lines:
        try:
            pid = start(launch)
        except RuntimeError as error:
            lines.write(str(error).encode())
            return _NOT_STARTED
        alive = os.pidfd_open(pid)

        def pass_on(number: int, _frame: object) -> None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(alive, signal.SIGKILL if number == KILL else number)

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, KILL):
            signal.signal(number, pass_on)
        lines.write(b"%d" % pid)
    if alive not in select.select([alive, owner], [], [])[0]:
        signal.pidfd_send_signal(alive, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    _check(_libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")
    if sys.argv[1] == "serve":
        _serve(socket.socket(fileno=int(sys.argv[2])))
        sys.exit(0)
    sys.exit(_once(*map(int, sys.argv[2:5])))
