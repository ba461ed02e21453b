"""A directory at the path of the socket, as the kubelet creates one for a pod's subPath."""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.listener import empty_tree, unix_socket
from netutil.agent.listener.stale import remove_stale_sockets
from netutil.agent.listener.unix_socket import Replaced, file_id

from tests.support.processes import open_descriptors
from tests.unit.listener.harness import EchoServer, echo_server, start, watch_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, immutable files")
TIMES = 1000
LISTEN = """
import json, os, sys
from netutil.agent.listener.unix_socket import listen
try:
    listener = listen(sys.argv[1], mode=0o666, directory_mode=0o755)
    result = "listens, moved to " + repr(listener.replaced.moved_to)
except OSError as error:
    result = f"{error.errno} {error.strerror}"
print(json.dumps([result, sorted(os.listdir(os.path.dirname(sys.argv[1])))]))
"""


class WithoutRenameat2:
    """A kernel or file system without RENAME_NOREPLACE and RENAME_EXCHANGE."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture(params=[True, False], ids=["renameat2", "without it"])
def _able(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(unix_socket, "_LIBC", WithoutRenameat2())


def subpath(path: Path) -> None:
    """Create the directories that the kubelet creates for `subPath: net.sock/x`."""
    (path / "x").mkdir(parents=True)


def many(path: Path) -> None:
    for one in range(20):
        (path / f"{one}" / "below" / "that").mkdir(parents=True)


def sticky(path: Path) -> None:
    """Create the mount point that crun 1.8.1 creates for a volume below a read-only hostPath."""
    subpath(path)
    for directory in (path, path / "x"):
        directory.chmod(0o1755)


def empty(path: Path) -> None:
    path.mkdir()


@pytest.mark.usefixtures("_able")
@pytest.mark.parametrize("make", [empty, subpath, many, sticky])
class TestTreeOfDirectories:
    def test_is_replaced_at_the_start_and_removed(
        self, make: Callable[[Path], None], tmp_path: Path
    ) -> None:
        path = tmp_path / "net.sock"
        make(path)
        listener = start(path)
        assert listener.still_ours()
        assert listener.replaced == Replaced(directory=True)
        assert os.listdir(tmp_path) == ["net.sock"]
        listener.connection.close()

    def test_is_replaced_by_a_running_agent(
        self, make: Callable[[Path], None], tmp_path: Path
    ) -> None:
        path = tmp_path / "net.sock"
        running = start(path)
        path.unlink()
        make(path)
        rebound = running.rebind(replacing=file_id(str(path)))
        assert rebound.still_ours()
        assert rebound.replaced == Replaced(directory=True)
        assert os.listdir(tmp_path) == ["net.sock"]
        for listener in (running, rebound):
            listener.connection.close()


def with_file(path: Path) -> None:
    subpath(path)
    (path / "x" / "data").write_text("data")


def with_link(path: Path) -> None:
    path.mkdir()
    (path / "link").symlink_to(path.parent)


def with_fifo(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "fifo")


def too_deep(path: Path) -> None:
    path.joinpath(*["x"] * (empty_tree.MAX_DEPTH + 1)).mkdir(parents=True)


def too_many(path: Path) -> None:
    path.mkdir()
    for number in range(empty_tree.MAX_DIRECTORIES):
        (path / f"{number}").mkdir()


def contents(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


@pytest.mark.usefixtures("_able")
@pytest.mark.parametrize("make", [with_file, with_link, with_fifo, too_deep, too_many])
def test_a_directory_with_other_content_is_moved_aside_and_kept(
    make: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, aside = tmp_path / "net.sock", re.compile(r"net\.sock\.[0-9a-f]{8}")
    make(path)
    files = [one for one in contents(path) if not (path / one).is_dir()]
    for number in range(3):
        if number:
            make(path)
        listener = start(path)
        assert listener.still_ours()
        moved = Path(listener.replaced.moved_to)
        assert aside.fullmatch(moved.name) and moved.is_dir() and moved.parent == tmp_path
        assert [one for one in contents(moved) if not (moved / one).is_dir()] == files
        assert f"listener: moved a directory at {path} to {moved} and left it there" in caplog.text
        listener.unlink_if_ours()
        listener.connection.close()
    assert len(os.listdir(tmp_path)) == 3


def test_a_moved_directory_is_removed_at_a_start_once_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.sock"
    with_file(path)
    listener = start(path)
    aside = Path(listener.replaced.moved_to)
    remove_stale_sockets(str(path))
    assert (aside / "x" / "data").read_text() == "data"
    assert f"{aside} was moved aside; remove it by hand" in caplog.text
    (aside / "x" / "data").unlink()
    remove_stale_sockets(str(path))
    assert os.listdir(tmp_path) == ["net.sock"]
    listener.connection.close()


def test_a_directory_with_another_name_is_left(tmp_path: Path) -> None:
    for name in ("net.sock.d", "net.sock.12345678.x", "other.12345678"):
        subpath(tmp_path / name)
    before = contents(tmp_path)
    remove_stale_sockets(str(tmp_path / "net.sock"))
    assert contents(tmp_path) == before


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_thousand_directories_leave_no_name_fd_or_mount(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    listener = start(path)
    descriptors, mounted = open_descriptors(), mounts()
    for number in range(TIMES):
        path.unlink()
        subpath(path)
        following = start(path) if number % 2 else listener.rebind(replacing=file_id(str(path)))
        listener.connection.close()
        listener = following
    # Fewer are those of earlier tests, whose threads have ended in the seconds of this one.
    assert open_descriptors() <= descriptors
    assert mounts() == mounted
    assert os.listdir(tmp_path) == ["net.sock"]
    listener.connection.close()


START = """
import sys
from pathlib import Path
from netutil.agent.listener.unix_socket import listen
for line in sys.stdin:
    path = line.strip()
    listener = listen(path, mode=0o666, directory_mode=0o755)
    print(listener.still_ours(), flush=True)
    sys.stdin.readline()
    print(listener.still_ours(), flush=True)
    sys.stdin.readline()
    listener.unlink_if_ours()
    listener.connection.close()
    print(flush=True)
"""


def test_two_starting_agents_replace_a_directory_by_one_socket(tmp_path: Path) -> None:
    """Processes, not threads: the umask around bind(2) belongs to the process."""
    path = tmp_path / "net.sock"
    agents = [
        subprocess.Popen(
            [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]

    def both(line: str) -> list[str]:
        for agent in agents:
            assert agent.stdin is not None
            agent.stdin.write(line)
            agent.stdin.flush()
        return [agent.stdout.readline().strip() for agent in agents if agent.stdout is not None]

    try:
        for _ in range(100):
            subpath(path)
            both(f"{path}\n")
            assert sorted(both("\n")) == ["False", "True"]
            assert os.listdir(tmp_path) == ["net.sock"]
            both("\n")
            assert os.listdir(tmp_path) == []
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()


def replace_by_directory(path: Path) -> None:
    path.unlink()
    subpath(path)


async def test_two_agents_retake_the_path_and_count_the_directories(
    tmp_path: Path,
) -> None:
    async with echo_server(tmp_path) as older:
        path = Path(older.path)
        newer = EchoServer(path)
        newer.acceptor.open()
        watches = [watch_of(older.acceptor), watch_of(newer.acceptor)]
        for _ in range(10):
            replace_by_directory(path)
            for watch, _ in watches:
                watch.check()
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
        assert sum(health.directories for _, health in watches) == 10
        assert os.listdir(tmp_path) == ["net.sock"]
        await newer.close()


async def test_the_watch_recovers_from_a_file_at_the_directorys_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    async with echo_server(folder) as server:
        watch, health = watch_of(server.acceptor)
        folder.rename(tmp_path / "moved")
        folder.write_text("no directory")
        with caplog.at_level(logging.ERROR):
            watch.check()
        assert "is not a directory" in caplog.text
        folder.unlink()
        watch.check()
        assert (health.rebinds, (folder / "net.sock").is_socket()) == (1, True)


@pytest.mark.parametrize(
    "make", [lambda at: at.write_text(""), lambda at: at.symlink_to("missing")]
)
def test_a_start_reports_a_directory_path_that_is_a_file(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "run")
    with pytest.raises(NotADirectoryError, match="is not a directory"):
        start(tmp_path / "run" / "net.sock")


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    made: list[Path] = []

    def make(path: Path) -> None:
        subprocess.run(["chattr", "+i", path], check=True)
        made.append(path)

    yield make
    for path in made:
        subprocess.run(["chattr", "-i", path], check=True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("make", [subpath, Path.touch])
def test_an_immutable_entry_is_reported_and_nothing_is_left(
    make: Callable[[Path], None], immutable: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    make(path)
    immutable(path)
    before = contents(tmp_path)
    with pytest.raises(PermissionError, match=r"immutable entries \(lsattr -d, chattr -i\)"):
        start(path)
    assert contents(tmp_path) == before


def listening_after(script: str, path: Path) -> tuple[str, list[str]]:
    """Listen in a separate mount namespace, after a shell script; the result, the names there."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    program = [sys.executable, "-c", LISTEN, str(path)]
    done = subprocess.run(
        [*command, f'{script}\nexec "$@"', "sh", *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    result, names = json.loads(done.stdout)
    return result, names


@contextmanager
def mounted_elsewhere(script: str) -> Iterator[None]:
    """Run a process in a separate mount namespace that mounts something and prints it."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"mounted\n"
            yield
        finally:
            process.kill()


@pytest.mark.root
@needs_root
def test_a_mount_at_the_path_is_reported_and_left(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    subpath(path)
    result, names = listening_after(f"mount --bind {path} {path}", path)
    assert result.startswith(f"{errno.EBUSY} cannot create the socket: something is mounted at")
    assert names == ["net.sock"]
    assert (path / "x").is_dir()


@pytest.mark.root
@needs_root
def test_a_mount_below_the_directory_is_left_with_its_content(tmp_path: Path) -> None:
    """The same file system: only the id of the mount distinguishes it from the tree."""
    path, elsewhere = tmp_path / "net.sock", tmp_path / "elsewhere"
    subpath(path)
    (elsewhere / "empty" / "below").mkdir(parents=True)
    result, names = listening_after(f"mount --bind {elsewhere} {path}/x", path)
    assert result.startswith("listens, moved to")
    assert [name for name in names if name.startswith("net.sock.")]
    assert (elsewhere / "empty" / "below").is_dir()


@pytest.mark.root
@needs_root
def test_a_subpath_mount_does_not_prevent_the_removal(tmp_path: Path) -> None:
    """It mounts the directory somewhere else, here in a namespace that outlives the removal."""
    path, target = tmp_path / "net.sock", tmp_path / "target"
    subpath(path)
    target.mkdir()
    hold = f"mount --bind {path}/x {target} && echo mounted && exec sleep 60"
    with mounted_elsewhere(hold):
        result, names = listening_after("", path)
    assert (result, names) == ("listens, moved to ''", ["net.sock", "target"])


@pytest.mark.root
@needs_root
def test_a_pods_mount_over_the_path_does_not_prevent_the_removal(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    subpath(path)
    hold = f"mount -t tmpfs none {path} && mkdir {path}/own && echo mounted && exec sleep 60"
    with mounted_elsewhere(hold):
        result, names = listening_after("", path)
    assert (result, names) == ("listens, moved to ''", ["net.sock"])
