"""Files that are held open: never older than a read by path, and closed when released."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.facts.cgroup_file import number_if_there
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue
from netutil.agent.facts.hugepages import HeldPools, read_pools, read_usage
from netutil.agent.facts.sysfs import BY_PATH, Files
from netutil.agent.facts.topology import Topology, read_topology

from tests.support.lab.cgroups import find_hierarchies
from tests.support.nodes.sriov_node import build_sriov_node
from tests.support.processes import open_descriptors

SEED = 18


def cgroup_top() -> Path:
    """Return a hierarchy that cgroups can be made in: of cgroup v1 if there is one."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for cgroups")
    found = sorted(find_hierarchies(), key=lambda one: one.version)
    if not found:
        pytest.skip("needs a writable cgroup hierarchy")
    with_cpu = [one for one in found if "cpu" in one.controllers]
    return (with_cpu or found)[0].directory


@contextmanager
def cgroup() -> Iterator[Path]:
    made = cgroup_top() / f"netutil-held-{os.getpid()}"
    made.mkdir()
    try:
        yield made
    finally:
        for directory, _, _ in os.walk(made, topdown=False):
            os.rmdir(directory)


def open_files() -> set[tuple[str, str]]:
    """Return the descriptors that are open, each with what it is of."""
    gc.collect()
    found = set()
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the directory itself
            found.add((one, os.readlink(f"/proc/self/fd/{one}")))
    return found


class Reader:
    """Makes the text of a file, and counts how often it did."""

    def __init__(self, directory: Path, name: str) -> None:
        self.made = 0
        self._directory = str(directory)
        self._name = name

    def __call__(self, files: Files) -> str | None:
        self.made += 1
        try:
            text = files.read(self._directory, self._name).decode()
        except FileNotFoundError:
            text = None
        return text if files.is_there(self._directory) else "no directory"


def held(reader: Reader) -> HeldValue[str | None]:
    return HeldValue(HeldFiles(HeldDirectories()), reader)


def test_a_value_is_made_once_while_its_file_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "cpu.shares").write_text("1024\n")
    reader = Reader(tmp_path, "cpu.shares")
    value = held(reader)
    assert value.get() is value.get()
    assert reader.made == 1


def test_another_text_is_seen_at_the_next_look(tmp_path: Path) -> None:
    file = tmp_path / "cpu.shares"
    file.write_text("1024\n")
    value = held(Reader(tmp_path, "cpu.shares"))
    assert value.get() == "1024\n"
    for text in ("1025\n", "1", "", "1024\n", "x" * 300, "x" * 301, "x" * 300, "y" * 9000):
        file.write_text(text)
        assert value.get() == text


def test_a_text_that_only_grew_is_another(tmp_path: Path) -> None:
    file = tmp_path / "cpuset.cpus"
    file.write_text("0-3," * 4096)
    value = held(Reader(tmp_path, "cpuset.cpus"))
    assert value.get() == "0-3," * 4096
    file.write_text("0-3," * 4096 + "9")
    assert value.get() == "0-3," * 4096 + "9"


def test_equal_values_are_one_object_whatever_was_between(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    value: HeldValue[tuple[int, ...]] = HeldValue(
        HeldFiles(HeldDirectories()), lambda files: (len(files.read(str(tmp_path), "a")),)
    )
    before = value.get()
    (tmp_path / "a").write_text("2")
    assert value.get() is before


def test_a_file_that_appears_is_seen(tmp_path: Path) -> None:
    (tmp_path / "notify_on_release").write_text("0\n")
    value = held(Reader(tmp_path, "cpuset.cpus.exclusive"))
    assert value.get() is None
    (tmp_path / "cpuset.cpus.exclusive").write_text("3\n")
    assert value.get() == "3\n"


def test_a_directory_that_appears_is_seen(tmp_path: Path) -> None:
    value = held(Reader(tmp_path / "late", "online"))
    assert value.get() == "no directory"
    (tmp_path / "late").mkdir()
    (tmp_path / "late/online").write_text("0-1")
    assert value.get() == "0-1"


def test_a_value_without_a_file_is_made_each_time(tmp_path: Path) -> None:
    made = count(1)
    value: HeldValue[int] = HeldValue(HeldFiles(HeldDirectories()), lambda _: next(made))
    assert (value.get(), value.get()) == (1, 2)


def test_an_error_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "cpu.shares"
    file.write_text("no number\n")
    value = HeldValue(
        HeldFiles(HeldDirectories()),
        lambda files: number_if_there(files, str(tmp_path), "cpu.shares"),
    )
    for _ in range(2):
        with pytest.raises(Exception, match="not what the kernel writes"):
            value.get()
    file.write_text("7\n")
    assert value.get() == 7


def test_a_file_removed_during_its_open_is_not_called_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    reader = Reader(tmp_path, "cpu.max")
    value = held(reader)
    real, failures = os.open, [errno.ENODEV]

    def failing(path: Any, *rest: Any, **options: Any) -> int:
        if path == "cpu.max" and failures:
            raise OSError(failures.pop(), "")
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", failing)
    assert value.get() == value.get() == "max 100000\n"
    assert reader.made == 2


def test_files_that_are_removed_again_and_again_are_read_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    before = open_descriptors()
    table = HeldDirectories()
    files = HeldFiles(table)
    value: HeldValue[bytes] = HeldValue(files, lambda found: found.read(str(tmp_path), "cpu.max"))

    def removed(*_: object) -> bytes:
        raise OSError(errno.ENODEV, "")

    monkeypatch.setattr(os, "pread", removed)
    assert value.get() == value.get() == b"max 100000\n"
    assert (table.descriptors, open_descriptors()) == (0, before)


def test_directories_are_shared_and_closed_with_their_last_user(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
    before = open_descriptors()
    table = HeldDirectories()
    one, other = HeldFiles(table), HeldFiles(table)
    for name in ("a", "b"):
        assert one.read(str(tmp_path), name) == other.read(str(tmp_path), name)
    assert table.descriptors == open_descriptors() - before == 3
    one.close()
    assert table.descriptors == open_descriptors() - before == 3
    assert other.read(str(tmp_path), "a") == b"1"
    other.close()
    assert table.descriptors == open_descriptors() - before == 0


def test_values_of_files_that_were_closed_are_read_again(tmp_path: Path) -> None:
    """Else a descriptor's number might be that of another file by then."""
    (tmp_path / "a").write_text("first")
    (tmp_path / "b").write_text("other")
    files = HeldFiles(HeldDirectories())
    value: HeldValue[bytes] = HeldValue(files, lambda found: found.read(str(tmp_path), "a"))
    assert value.get() == b"first"
    files.close()
    taken = [os.open(tmp_path / "b", os.O_RDONLY) for _ in range(8)]
    try:
        assert value.get() == b"first"
    finally:
        files.close()
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.root
def test_a_cgroup_that_was_made_again_under_its_name_is_another() -> None:
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    with cgroup() as made:
        name = "cpu.shares" if (made / "cpu.shares").exists() else "cgroup.max.depth"
        table = HeldDirectories()
        files = HeldFiles(table)
        value: HeldValue[bytes] = HeldValue(files, lambda found: found.read(str(made), name))
        for _ in range(300):
            number = chance.randrange(2, 1000)
            (made / name).write_text(f"{number}")
            assert value.get() == f"{number}\n".encode()
            if chance.random() < 0.5:
                made.rmdir()
                made.mkdir()
                assert value.get() == (made / name).read_bytes() != f"{number}\n".encode()
        assert table.descriptors == 2
        files.close()


@pytest.mark.root
def test_a_cgroup_that_was_removed_is_not_there() -> None:
    with cgroup() as made:
        reader = Reader(made, "notify_on_release")
        if not (made / "notify_on_release").exists():
            reader = Reader(made, "cgroup.max.depth")
        value = held(reader)
        assert value.get() == value.get() != "no directory"
        made.rmdir()
        assert value.get() == "no directory"
        assert value.get() == "no directory"


@pytest.mark.root
def test_a_held_cgroup_can_be_removed_and_holds_nothing_up() -> None:
    with cgroup() as made:
        files = HeldFiles(HeldDirectories())
        files.is_there(str(made))
        assert not files.has_removed()
        made.rmdir()
        assert files.has_removed()
        files.close()


@contextmanager
def delegated_hugetlb() -> Iterator[tuple[Path, Path]]:
    """Yield a cgroup v2 directory below which the hugetlb controller can be handed down."""
    tops = [one.directory for one in find_hierarchies() if one.version == 2]
    if not tops or "hugetlb" not in (tops[0] / "cgroup.controllers").read_text().split():
        pytest.skip("this machine's cgroup v2 has no hugetlb controller")
    top = tops[0]
    before = (top / "cgroup.subtree_control").read_text().split()
    (top / "cgroup.subtree_control").write_text("+hugetlb")
    middle = top / f"netutil-held-{os.getpid()}"
    inner = middle / "inner"
    try:
        middle.mkdir()
        inner.mkdir()
        yield middle, inner
    finally:
        for directory in (inner, middle):
            if directory.exists():
                directory.rmdir()
        if "hugetlb" not in before:
            (top / "cgroup.subtree_control").write_text("-hugetlb")


@pytest.mark.root
@pytest.mark.xdist_group("hugepages")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for cgroups")
def test_a_controller_that_is_turned_off_and_on_is_seen_at_once() -> None:
    with delegated_hugetlb() as (middle, inner):
        table = HeldDirectories()
        files = [HeldFiles(table) for _ in range(2)]
        place = ControllerDirectory(2, str(inner), str(middle))
        values = [HeldValue(one, lambda files: read_usage(place, files)) for one in files]
        chance = random.Random(SEED)  # noqa: S311 - not a secret
        for _ in range(60):
            switch = chance.choice("+-")
            (middle / "cgroup.subtree_control").write_text(f"{switch}hugetlb")
            for _ in range(chance.randrange(3)):
                if switch == "+":
                    limit = chance.choice((2**21, 2**22, 2**23))
                    place_of_limit = chance.choice((middle, inner))
                    (place_of_limit / "hugetlb.2MB.max").write_text(str(limit))
                for value in chance.sample(values, 2):
                    assert value.get() == read_usage(place, BY_PATH)
        for one in files:
            one.close()
        assert table.descriptors == 0


def test_pools_are_those_of_the_moment(tmp_path: Path) -> None:
    root = build_sriov_node(tmp_path)
    pools = HeldPools(root)
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    files = sorted(Path(root, "sys").rglob("*_hugepages"))
    assert len(files) > 8
    for _ in range(200):
        chance.choice(files).write_text(f"{chance.randrange(5000)}\n")
        assert pools.known() == read_pools(root)
    assert pools.known() is pools.known()


def test_a_numa_node_that_comes_has_its_part_of_the_pools(tmp_path: Path) -> None:
    root = build_sriov_node(tmp_path)
    pools = HeldPools(root)
    before = pools.known()
    new = Path(root, "sys/devices/system/node/node7/hugepages/hugepages-2048kB")
    new.mkdir(parents=True)
    for name in ("nr", "free", "surplus"):
        (new / f"{name}_hugepages").write_text("3\n")
    assert pools.known() == read_pools(root) != before


def test_a_numa_node_that_gets_memory_has_its_part_of_the_pools(tmp_path: Path) -> None:
    root = build_sriov_node(tmp_path)
    Path(root, "sys/devices/system/node/node7").mkdir()
    pools = HeldPools(root)
    before = pools.known()
    new = Path(root, "sys/devices/system/node/node7/hugepages/hugepages-2048kB")
    new.mkdir(parents=True)
    (new / "nr_hugepages").write_text("3\n")
    assert pools.known() == read_pools(root) != before


def test_pools_of_too_many_files_are_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_sriov_node(tmp_path)
    before = open_descriptors()
    monkeypatch.setattr(HeldPools, "MAX_DESCRIPTORS", 8)
    pools = HeldPools(root)
    assert pools.known() == read_pools(root)
    assert pools.known() is None
    assert open_descriptors() == before


def test_the_topology_is_that_of_the_cpus_that_are_online(tmp_path: Path) -> None:
    root = build_sriov_node(tmp_path)
    online = Path(root, "sys/devices/system/cpu/online")
    topology = Topology(root)
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    for _ in range(100):
        online.write_text(f"0-{chance.randrange(1, 8)}\n")
        found = topology.known((0, 3, 5)) or topology.read((0, 3, 5))
        assert found == read_topology(root, (0, 3, 5))
        assert topology.known((0, 3, 5)) == found


def test_only_open_files_of_an_existing_cgroup_are_shared() -> None:
    with cgroup() as made:
        directories, name = HeldDirectories(), "cgroup.procs"
        assert directories.read_open(str(made), name) is None
        held = directories.acquire(str(made))
        assert directories.read_open(str(made), name) is None
        directories.open(held, name)
        assert directories.read_open(str(made), name) == b""
        made.rmdir()
        made.mkdir()
        assert directories.read_open(str(made), name) is None
        directories.release(held)
