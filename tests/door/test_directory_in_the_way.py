"""A directory at the socket's path, as the kubelet makes one for a pod's subPath."""

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
from netutil.agent.door import empty_tree, place
from netutil.agent.door.door import Door
from netutil.agent.door.keeper import Keeper, Kept
from netutil.agent.door.leftovers import remove_leftovers
from netutil.agent.door.limits import Limits
from netutil.agent.door.listener import Listener, listen
from netutil.agent.door.place import Replaced, inode_of
from netutil.agent.door.table import ConnectionTable
from netutil.agent.identity.pinning import choose_pin

from tests.door.rig import door_before, echo, open_descriptors, peer_of

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, immutable files")
TIMES = 1000
LISTEN = """
import json, os, sys
from netutil.agent.door.listener import listen
try:
    listener = listen(sys.argv[1], mode=0o666, directory_mode=0o755)
    said = "listens, left at " + repr(listener.replaced.left_at)
except OSError as error:
    said = f"{error.errno} {error.strerror}"
print(json.dumps([said, sorted(os.listdir(os.path.dirname(sys.argv[1])))]))
"""


class Unable:
    """A kernel or file system without RENAME_NOREPLACE and RENAME_EXCHANGE."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture(params=[True, False], ids=["renameat2", "without it"])
def _able(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(place, "_LIBC", Unable())


def start(path: Path) -> Listener:
    return listen(str(path), mode=0o666, directory_mode=0o755)


def subpath(path: Path) -> None:
    """What the kubelet makes for `subPath: net.sock/x`."""
    (path / "x").mkdir(parents=True)


def crowd(path: Path) -> None:
    for one in range(20):
        (path / f"{one}" / "below" / "that").mkdir(parents=True)


def sticky(path: Path) -> None:
    """What crun 1.8.1 makes as the mount point of a volume below a read-only hostPath."""
    subpath(path)
    for directory in (path, path / "x"):
        directory.chmod(0o1755)


def empty(path: Path) -> None:
    path.mkdir()


@pytest.mark.usefixtures("_able")
@pytest.mark.parametrize("make", [empty, subpath, crowd, sticky])
class TestDirectoriesAlone:
    def test_are_replaced_at_the_start_and_gone(
        self, make: Callable[[Path], None], tmp_path: Path
    ) -> None:
        path = tmp_path / "net.sock"
        make(path)
        listener = start(path)
        assert listener.still_ours()
        assert listener.replaced == Replaced(directory=True)
        assert os.listdir(tmp_path) == ["net.sock"]
        listener.connection.close()

    def test_are_replaced_by_an_agent_that_runs(
        self, make: Callable[[Path], None], tmp_path: Path
    ) -> None:
        path = tmp_path / "net.sock"
        running = start(path)
        path.unlink()
        make(path)
        anew = running.anew(inode_of(str(path)))
        assert anew.still_ours()
        assert anew.replaced == Replaced(directory=True)
        assert os.listdir(tmp_path) == ["net.sock"]
        for listener in (running, anew):
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
def test_a_directory_that_holds_more_is_moved_aside_said_and_left(
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
        moved = Path(listener.replaced.left_at)
        assert aside.fullmatch(moved.name) and moved.is_dir() and moved.parent == tmp_path
        assert [one for one in contents(moved) if not (moved / one).is_dir()] == files
        assert f"a directory stood at {path}: moved to {moved}" in caplog.text
        listener.unlink_if_ours()
        listener.connection.close()
    assert len(os.listdir(tmp_path)) == 3


def test_what_was_moved_aside_is_removed_at_a_start_once_it_holds_directories_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.sock"
    with_file(path)
    listener = start(path)
    aside = Path(listener.replaced.left_at)
    remove_leftovers(str(path))
    assert (aside / "x" / "data").read_text() == "data"
    assert f"{aside} was moved aside: remove it by hand" in caplog.text
    (aside / "x" / "data").unlink()
    remove_leftovers(str(path))
    assert os.listdir(tmp_path) == ["net.sock"]
    listener.connection.close()


def test_a_directory_of_another_name_is_left(tmp_path: Path) -> None:
    for name in ("net.sock.d", "net.sock.12345678.x", "other.12345678"):
        subpath(tmp_path / name)
    before = contents(tmp_path)
    remove_leftovers(str(tmp_path / "net.sock"))
    assert contents(tmp_path) == before


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_a_thousand_directories_leave_no_name_descriptor_or_mount(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    listener = start(path)
    before = open_descriptors(), mounts()
    for number in range(TIMES):
        path.unlink()
        subpath(path)
        following = start(path) if number % 2 else listener.anew(inode_of(str(path)))
        listener.connection.close()
        listener = following
    assert (open_descriptors(), mounts()) == before
    assert os.listdir(tmp_path) == ["net.sock"]
    listener.connection.close()


START = """
import sys
from pathlib import Path
from netutil.agent.door.listener import listen
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


def test_two_agents_that_start_at_once_before_a_directory_leave_one_socket(tmp_path: Path) -> None:
    """Processes, not threads: the umask around bind(2) is the whole process's."""
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


def in_its_place(path: Path) -> None:
    path.unlink()
    subpath(path)


def keeper_of(door: Door) -> tuple[Keeper, Kept]:
    kept = Kept()
    return Keeper(door, choose_pin()[0], kept), kept


async def test_the_keeper_of_two_agents_takes_the_path_back_each_time_and_counts(
    tmp_path: Path,
) -> None:
    async with door_before(echo, tmp_path) as rig:
        path, table = Path(rig.path), ConnectionTable()
        newer = Door(start(path), str(tmp_path / "private.sock"), table, peer_of, Limits(9, 9))
        newer.open()
        keepers = [keeper_of(rig.door), keeper_of(newer)]
        for _ in range(10):
            in_its_place(path)
            for keeper, _ in keepers:
                keeper.look()
            assert stat.S_ISSOCK(os.lstat(path).st_mode)
        assert sum(kept.directories for _, kept in keepers) == 10
        assert "net.sock" in os.listdir(tmp_path)
        assert not [name for name in os.listdir(tmp_path) if name.startswith("net.sock.")]
        newer.close()


async def test_a_file_in_the_place_of_the_directory_is_said_and_not_waited_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    async with door_before(echo, folder) as rig:
        keeper, kept = keeper_of(rig.door)
        folder.rename(tmp_path / "moved")
        folder.write_text("no directory")
        with caplog.at_level(logging.ERROR):
            keeper.look()
        assert "leads to something that is no directory" in caplog.text
        folder.unlink()
        keeper.look()
        assert (kept.rebinds, (folder / "net.sock").is_socket()) == (1, True)


@pytest.mark.parametrize("make", [lambda at: at.write_text(""), lambda at: at.symlink_to("gone")])
def test_a_start_where_the_directory_is_none_says_so(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "run")
    with pytest.raises(NotADirectoryError, match="leads to something that is no directory"):
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
def test_an_immutable_entry_is_said_and_nothing_is_left(
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
    """Listen in a mount namespace of its own, after a shell script; what it says, what is there."""
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
    said, names = json.loads(done.stdout)
    return said, names


@contextmanager
def mounted_elsewhere(script: str) -> Iterator[None]:
    """Run a process in a mount namespace of its own that mounts something and says so."""
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
def test_a_mount_at_the_path_itself_is_said_and_left(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    subpath(path)
    said, names = listening_after(f"mount --bind {path} {path}", path)
    assert said.startswith(f"{errno.EBUSY} the socket cannot be made: something is mounted at")
    assert names == ["net.sock"]
    assert (path / "x").is_dir()


@pytest.mark.root
@needs_root
def test_a_mount_below_the_directory_is_left_with_all_that_it_shows(tmp_path: Path) -> None:
    """The same file system: only the mount's id tells it from the tree."""
    path, elsewhere = tmp_path / "net.sock", tmp_path / "elsewhere"
    subpath(path)
    (elsewhere / "empty" / "below").mkdir(parents=True)
    said, names = listening_after(f"mount --bind {elsewhere} {path}/x", path)
    assert said.startswith("listens, left at")
    assert [name for name in names if name.startswith("net.sock.")]
    assert (elsewhere / "empty" / "below").is_dir()


@pytest.mark.root
@needs_root
def test_the_kubelets_own_mount_of_a_subpath_keeps_nothing(tmp_path: Path) -> None:
    """It mounts the directory somewhere else, here in a namespace that outlives the look."""
    path, target = tmp_path / "net.sock", tmp_path / "target"
    subpath(path)
    target.mkdir()
    hold = f"mount --bind {path}/x {target} && echo mounted && exec sleep 60"
    with mounted_elsewhere(hold):
        said, names = listening_after("", path)
    assert (said, names) == ("listens, left at ''", ["net.sock", "target"])


@pytest.mark.root
@needs_root
def test_what_a_pod_mounts_over_the_path_in_its_own_namespace_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    subpath(path)
    hold = f"mount -t tmpfs none {path} && mkdir {path}/own && echo mounted && exec sleep 60"
    with mounted_elsewhere(hold):
        said, names = listening_after("", path)
    assert (said, names) == ("listens, left at ''", ["net.sock"])
