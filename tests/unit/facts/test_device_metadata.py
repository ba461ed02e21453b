"""The drivers' files: only below the tree, only whole, held until they change."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import AgentError, Reason
from netutil.agent.facts.device_metadata import (
    MAX_FILES,
    MAX_HELD_BYTES,
    MAX_HELD_FILES,
    MAX_LOOK_BYTES,
    Clocks,
    DeviceMetadataFiles,
    RequestFile,
)
from netutil.agent.facts.plugin_tree import (
    MAX_DRIVERS,
    MAX_PLUGINS,
    MAX_REQUESTS,
    is_label,
    is_subdomain,
    plugins_directory,
)
from netutil.agent.parsers.claims import MAX_VALUES
from netutil.agent.parsers.device_metadata import MAX_BYTES, DeviceMetadata

from tests.support.device_metadata import DRIVER, both, device, document, stream, vf
from tests.support.nodes.dra_tree import DraTree, settle
from tests.support.processes import open_descriptors

CLAIM = "nic-x7k2p"


@pytest.fixture
def tree(tmp_path: Path) -> DraTree:
    return DraTree(tmp_path / "kubelet")


@pytest.fixture
def files(tree: DraTree) -> DeviceMetadataFiles:
    return DeviceMetadataFiles(str(tree.plugins))


def read(
    files: DeviceMetadataFiles, claim: str = CLAIM, request: str = ""
) -> tuple[RequestFile, ...]:
    (found,) = files.read("shop", [(claim, request)])
    assert not isinstance(found, AgentError), found
    return found


def metadata(file: RequestFile) -> DeviceMetadata:
    assert isinstance(file.outcome, DeviceMetadata), file.outcome
    return file.outcome


def reason(file: RequestFile) -> Reason:
    assert isinstance(file.outcome, AgentError), file.outcome
    return file.outcome.reason


def test_a_driver_and_its_request_are_found(tree: DraTree, files: DeviceMetadataFiles) -> None:
    tree.write(both(vf()))
    (found,) = read(files)
    assert (found.driver, found.request) == (DRIVER, "vf")
    assert metadata(found).requests[0].devices[0].name == "0000-3b-02-1"


def test_two_drivers_of_one_request_are_found(tree: DraTree, files: DeviceMetadataFiles) -> None:
    tree.write(both(vf()))
    other = "gpu.example.com"
    tree.write(both(device("gpu-0", driver=other)), driver=other)
    assert [one.driver for one in read(files)] == [other, DRIVER]


def test_only_the_request_that_is_asked_for_is_read(
    tree: DraTree, files: DeviceMetadataFiles
) -> None:
    for name in ("vf", "gpu"):
        tree.write(both(device(), request=name), request=name)
    assert [one.request for one in read(files, request="gpu")] == ["gpu"]
    assert [one.request for one in read(files)] == ["gpu", "vf"]


def test_a_subrequest_is_in_the_directory_of_its_request(
    tree: DraTree, files: DeviceMetadataFiles
) -> None:
    tree.write(both(device(), request="vf/fast"))
    (found,) = read(files, request="vf")
    assert metadata(found).requests[0].name == "vf/fast"


def test_a_claim_without_files_has_none(tree: DraTree, files: DeviceMetadataFiles) -> None:
    tree.write(both(vf()))
    assert read(files, claim="other") == ()
    assert read(files, request="other") == ()
    assert files.read("elsewhere", [(CLAIM, "")]) == ((),)
    assert read(files, claim=".".join(["a" * 63] * 3 + ["a" * 61])) == ()


def test_a_plugin_of_another_kind_is_passed_over(tree: DraTree, files: DeviceMetadataFiles) -> None:
    (tree.plugins / "csi.example.com").mkdir()
    (tree.plugins / "driver.sock").touch()
    (tree.plugins / "kubernetes.io/csi").mkdir(parents=True)
    tree.write(both(vf()))
    assert len(read(files)) == 1
    assert files.drivers() == (DRIVER,)


def test_a_removed_driver_takes_its_devices_along(
    tree: DraTree, files: DeviceMetadataFiles
) -> None:
    tree.write(both(vf()))
    assert len(read(files)) == 1
    tree.remove_driver()
    assert read(files) == ()


def test_a_missing_directory_of_plugins_is_an_error(tmp_path: Path) -> None:
    missing = DeviceMetadataFiles(plugins_directory(f"{tmp_path}/"))
    with pytest.raises(AgentError, match=r"plugins could not be read") as caught:
        missing.read("shop", [(CLAIM, "")])
    assert caught.value.reason is Reason.FILE_NOT_READABLE
    with pytest.raises(AgentError):
        missing.signatures([("shop", ((CLAIM, ""),))])


class TestHeld:
    def test_an_unchanged_file_is_read_once(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        tree.write(both(vf()))
        first, again = read(files), read(files)
        assert metadata(first[0]) is metadata(again[0])
        assert (files.stats.reads, files.stats.failures, len(files)) == (1, 0, 1)

    @pytest.mark.parametrize("how", ["in place", "replaced"])
    def test_a_new_generation_is_read(
        self, tree: DraTree, files: DeviceMetadataFiles, how: str
    ) -> None:
        path = tree.write(both(vf()))
        assert metadata(read(files)[0]).generation == 1
        body = both(vf(), generation=2)
        if how == "in place":
            path.write_bytes(body)
        else:
            path.with_name("next").write_bytes(body)
            path.with_name("next").replace(path)
        assert metadata(read(files)[0]).generation == 2

    def test_an_error_is_held_as_well(self, tree: DraTree, files: DeviceMetadataFiles) -> None:
        tree.write(b"{}")
        assert read(files)[0].outcome is read(files)[0].outcome
        assert (files.stats.reads, files.stats.failures) == (1, 1)

    def test_an_unused_file_is_released(self, tree: DraTree) -> None:
        now = [0.0]
        files = DeviceMetadataFiles(str(tree.plugins), Clocks(monotonic=lambda: now[0]))
        tree.write(both(vf()))
        read(files)
        assert files.held_bytes > 0
        now[0] = 61.0
        files.age()
        assert (len(files), files.held_bytes) == (0, 0)

    def test_a_thousand_files_are_held_and_no_more(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        for number in range(1000):
            tree.write_now(both(vf(), claim=f"c{number}"), claim=f"c{number}")
        settle(tree.path(claim="c999"))
        for number in range(1000):
            assert metadata(read(files, claim=f"c{number}")[0]).claim_name == f"c{number}"
        assert len(files) == 1000
        for number in range(1000, MAX_HELD_FILES + 40):
            tree.write_now(both(vf(), claim=f"c{number}"), claim=f"c{number}")
        settle(tree.path(claim=f"c{MAX_HELD_FILES + 39}"))
        for number in range(1000, MAX_HELD_FILES + 40):
            read(files, claim=f"c{number}")
        assert len(files) == MAX_HELD_FILES

    def test_a_large_file_counts_as_many(self, tree: DraTree, files: DeviceMetadataFiles) -> None:
        large = device(attributes={f"a{n}": {"ints": [2**40 + n] * MAX_VALUES} for n in range(64)})
        for number in range(40):
            tree.write_now(both(*[large] * 2, claim=f"c{number}"), claim=f"c{number}")
        settle(tree.path(claim="c39"))
        for number in range(40):
            assert metadata(read(files, claim=f"c{number}")[0]).claim_name == f"c{number}"
        assert 0 < len(files) < 40
        assert files.held_bytes <= MAX_HELD_BYTES

    def test_a_file_as_large_as_the_limit_is_not_held(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        attributes = {f"a{n}": {"strings": ["b"] * MAX_VALUES} for n in range(64)}
        body = document(*[device(attributes=attributes)] * 50)
        tree.write(json.dumps(body, separators=(",", ":")).encode())
        assert len(metadata(read(files)[0]).requests[0].devices) == 50
        assert (len(files), files.held_bytes) == (0, 0)


class Writer:
    """A clock whose pauses are used by a driver, which writes meanwhile."""

    def __init__(self, steps: Iterator[Callable[[], object]]) -> None:
        self.steps = steps
        self.slept = 0.0
        self.clocks = Clocks(
            monotonic=lambda: self.slept, wall_ns=lambda: self.wall, sleep=self.sleep
        )
        self.wall = 0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.wall += round(seconds * 1e9)
        next(self.steps, lambda: None)()


class TestHalf:
    """A file that is written in place is empty, then half there, then whole."""

    def writer(self, tree: DraTree, *bodies: bytes) -> tuple[Writer, DeviceMetadataFiles, Path]:
        path = tree.write(both(vf()))

        def writing(body: bytes) -> Callable[[], object]:
            def write() -> None:
                path.write_bytes(body)
                writer.wall = os.stat(path).st_ctime_ns

            return write

        writer = Writer(iter([writing(body) for body in bodies[1:]]))
        writing(bodies[0])()
        return writer, DeviceMetadataFiles(str(tree.plugins), writer.clocks), path

    def test_the_whole_file_is_awaited(self, tree: DraTree) -> None:
        whole = both(vf(), generation=2)
        _, files, _ = self.writer(tree, b"", whole[:100], whole[: len(whole) // 2], whole)
        (found,) = read(files)
        assert metadata(found).generation == 2

    def test_a_file_that_was_just_written_is_not_trusted(self, tree: DraTree) -> None:
        second = both(vf(), generation=3)
        _, files, _ = self.writer(tree, both(vf(), generation=2), second)
        assert metadata(read(files)[0]).generation == 3

    def test_a_file_that_changes_all_the_time_is_an_error(self, tree: DraTree) -> None:
        bodies = [both(vf(), generation=number) for number in range(60)]
        writer, files, _ = self.writer(tree, *bodies)
        (found,) = read(files)
        assert reason(found) is Reason.DEVICE_METADATA_CHANGING
        assert writer.slept <= 0.5
        assert len(files) == 0

    @pytest.mark.parametrize("left", [b"", b'{"apiVersion": "metad'], ids=["empty", "half"])
    def test_a_file_that_stays_half_is_malformed_at_last(self, tree: DraTree, left: bytes) -> None:
        writer, files, path = self.writer(tree, left)
        assert reason(read(files)[0]) is Reason.DEVICE_METADATA_CHANGING
        assert len(files) == 0
        writer.wall = os.stat(path).st_ctime_ns + 2_000_000_000
        assert reason(read(files)[0]) is Reason.DEVICE_METADATA_MALFORMED
        assert len(files) == 1

    def test_many_new_files_wait_together(self, tree: DraTree) -> None:
        bodies = itertools.repeat(lambda: None)
        writer = Writer(bodies)
        files = DeviceMetadataFiles(str(tree.plugins), writer.clocks)
        for number in range(100):
            name = f"r{number}"
            path = tree.write_now(both(vf(), request=name), request=name, claim="a" * 9)
            if number >= MAX_REQUESTS:
                shutil.rmtree(path.parent)
        (found,) = files.read("shop", [("a" * 9, "")])
        writer.wall = os.stat(tree.path(claim="a" * 9, request="r63")).st_ctime_ns
        assert not isinstance(found, AgentError)
        assert len(found) == MAX_REQUESTS
        assert writer.slept <= 0.6

    def test_a_time_in_the_future_blocks_nothing(self, tree: DraTree) -> None:
        writer, files, path = self.writer(tree, both(vf(), generation=2))
        writer.wall = os.stat(path).st_ctime_ns - 10**12
        assert metadata(read(files)[0]).generation == 2
        assert len(files) == 0


def numbered(generation: int) -> bytes:
    """A file of several pages that says its generation in each of its devices."""
    attributes = {f"a{number}": {"int": generation} for number in range(16)}
    return both(*[device(attributes=attributes)] * 16, generation=generation)


def test_no_answer_mixes_two_generations(tree: DraTree, files: DeviceMetadataFiles) -> None:
    last = 12
    path = tree.write(numbered(0))

    def write() -> None:
        for generation in range(1, last + 1):
            path.write_bytes(numbered(generation))
            path.write_bytes(numbered(generation))
            settle(path)

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while seen < last:
        (found,) = read(files)
        if isinstance(found.outcome, AgentError):
            assert found.outcome.reason is Reason.DEVICE_METADATA_CHANGING
            continue
        values = {
            value.int_value
            for one in found.outcome.requests[0].devices
            for _, value in one.attributes or ()
        }
        assert values == {found.outcome.generation}
        assert found.outcome.generation >= seen
        seen = found.outcome.generation
    writer.join()


class TestNames:
    @pytest.mark.parametrize(
        ("namespace", "claim", "request_"),
        [
            ("..", CLAIM, ""),
            ("shop/..", CLAIM, ""),
            ("shop", "..", ""),
            ("shop", "../../etc", ""),
            ("shop", "a/b", ""),
            ("shop", "a_b", ""),
            ("shop", "", ""),
            ("", CLAIM, ""),
            ("shop", CLAIM, ".."),
            ("shop", CLAIM, "a/b"),
            ("shop", CLAIM, "vf\n"),
            ("shop", f"{CLAIM}\n", ""),
            ("shop", "a\0b", ""),
            ("shop", "Upper", ""),
            ("shop", "a" * 254, ""),
            ("a" * 64, CLAIM, ""),
        ],
    )
    def test_a_name_that_no_object_has_makes_no_path(
        self, files: DeviceMetadataFiles, namespace: str, claim: str, request_: str
    ) -> None:
        (found,) = files.read(namespace, [(claim, request_)])
        assert isinstance(found, AgentError)
        assert found.reason is Reason.RESOURCE_CLAIMS_MALFORMED
        wanted = (namespace, ((claim, request_),))
        assert files.signatures([wanted]) == {wanted: ()}

    @given(st.text())
    def test_no_name_leads_elsewhere(self, name: str) -> None:
        if is_label(name) or is_subdomain(name):
            assert not set(name) & set("/_\0\n") and not name.startswith(".")

    def test_a_long_subdomain_is_checked_at_once(self) -> None:
        assert not is_subdomain("a-" * 5000)
        assert not is_subdomain("a." * 5000)

    def test_a_driver_whose_name_is_none_is_passed_over(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        for name in ("_hidden", "a" * 64, "a_b", ".a"):
            tree.write(both(device(driver=name)), driver=name)
        tree.write(both(device(driver="Caseless.example.com")), driver="Caseless.example.com")
        assert [one.driver for one in read(files)] == ["Caseless.example.com"]


class TestLinks:
    """The reader follows no link out of the tree."""

    def test_a_driver_that_is_a_link_is_passed_over(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        tree.write(both(device(driver="linked.example.com")))
        os.symlink(tree.plugins / DRIVER, tree.plugins / "linked.example.com")
        assert {one.driver for one in read(files)} == {DRIVER}

    @pytest.mark.parametrize("depth", [1, 2, 3, 4], ids=["file", "request", "claim", "metadata"])
    def test_a_link_is_not_entered(
        self, tree: DraTree, files: DeviceMetadataFiles, tmp_path: Path, depth: int
    ) -> None:
        path = tree.write(both(vf()))
        moved = (path, *path.parents)[depth - 1]
        moved.rename(tmp_path / "moved")
        os.symlink(tmp_path / "moved", moved)
        (found,) = read(files, request="vf")
        assert reason(found) is Reason.DEVICE_METADATA_MALFORMED
        assert "a link" in str(found.outcome)
        wanted = ("shop", ((CLAIM, "vf"),))
        assert files.signatures([wanted])[wanted] != ()

    @pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
    def test_only_a_regular_file_is_read(
        self, tree: DraTree, files: DeviceMetadataFiles, kind: str
    ) -> None:
        path = tree.path()
        path.parent.mkdir(parents=True)
        if kind == "directory":
            path.mkdir()
        else:
            os.mknod(path, 0o010644 if kind == "fifo" else 0o140644)
        (found,) = read(files)
        assert reason(found) is Reason.DEVICE_METADATA_MALFORMED
        assert "no regular file" in str(found.outcome)


@pytest.mark.parametrize(
    "body",
    [
        both(vf(), claim="other"),
        both(vf(), namespace="other"),
        both(vf(), request="other"),
        both(vf(driver="other.example.com")),
        both(device(driver=DRIVER), request=DRIVER),
    ],
    ids=["claim", "namespace", "request", "driver", "a driver's name"],
)
def test_a_file_about_something_else_is_an_error(
    tree: DraTree, files: DeviceMetadataFiles, body: bytes
) -> None:
    tree.write(body)
    (found,) = read(files)
    assert reason(found) is Reason.DEVICE_METADATA_CONTRADICTS


def test_a_file_without_a_known_version_is_an_error(tree: DraTree) -> None:
    tree.write(stream(document(version="metadata.resource.k8s.io/v9")))
    later = Clocks(wall_ns=lambda: time.time_ns() + 2_000_000_000)
    files = DeviceMetadataFiles(str(tree.plugins), later)
    assert reason(read(files)[0]) is Reason.DEVICE_METADATA_MALFORMED


class TestLimits:
    def test_a_file_beyond_the_limit_is_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        tree.write(both(vf()) + b" " * MAX_BYTES)
        assert reason(read(files)[0]) is Reason.TOO_MANY_CLAIM_DEVICES

    def test_plugins_beyond_the_limit_are_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        for number in range(MAX_PLUGINS + 1):
            (tree.plugins / f"p{number}").mkdir()
        with pytest.raises(AgentError, match=f"more than {MAX_PLUGINS} plugins"):
            read(files)

    def test_drivers_beyond_the_limit_are_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        for number in range(MAX_DRIVERS + 1):
            (tree.plugins / f"p{number}/dra-device-metadata").mkdir(parents=True)
        with pytest.raises(AgentError, match=f"more than {MAX_DRIVERS} drivers"):
            read(files)

    def test_requests_beyond_the_limit_are_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        for number in range(MAX_REQUESTS + 1):
            tree.path(request=f"r{number}").parent.mkdir(parents=True)
        assert reason(read(files)[0]) is Reason.TOO_MANY_CLAIM_DEVICES

    def test_files_beyond_the_limit_are_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        claims = [f"c{number}" for number in range(MAX_FILES + 1)]
        for claim in claims:
            tree.write_now(both(vf(), claim=claim), claim=claim)
        settle(tree.path(claim=claims[-1]))
        found = files.read("shop", [(claim, "") for claim in claims])
        last = cast(tuple[RequestFile, ...], found[-1])
        assert reason(last[0]) is Reason.TOO_MANY_CLAIM_DEVICES
        assert all(metadata(cast(tuple[RequestFile, ...], one)[0]) for one in found[:-1])
        (seen,) = files.signatures([("shop", tuple((claim, "") for claim in claims))]).values()
        assert len(cast(tuple[object, ...], seen)) == MAX_FILES

    def test_bytes_beyond_the_limit_are_refused(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        claims = [f"c{number}" for number in range(MAX_LOOK_BYTES // MAX_BYTES + 1)]
        for claim in claims:
            body = both(vf(), claim=claim)
            tree.write(body + b" " * (MAX_BYTES - len(body)), claim=claim)
        found = files.read("shop", [(claim, "") for claim in claims])
        last = cast(tuple[RequestFile, ...], found[-1])
        assert reason(last[0]) is Reason.TOO_MANY_CLAIM_DEVICES
        assert metadata(cast(tuple[RequestFile, ...], found[0])[0])

    def test_a_look_leaves_no_descriptor_open(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        before = open_descriptors()
        for name in ("vf", "gpu"):
            tree.write(both(device(), request=name), request=name)
        read(files)
        read(files, claim="other")
        files.signatures([("shop", ((CLAIM, ""),))])
        files.drivers()
        assert open_descriptors() == before


class TestSignatures:
    WANTED = ("shop", ((CLAIM, ""),))

    def seen(self, files: DeviceMetadataFiles) -> object:
        return files.signatures([self.WANTED])[self.WANTED]

    def test_a_change_is_seen_without_a_read(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        states = [self.seen(files)]
        path = tree.write(both(vf()))
        states.append(self.seen(files))
        path.write_bytes(both(vf(), generation=2))
        states.append(self.seen(files))
        tree.write(both(device(driver="b.example.com")), driver="b.example.com")
        states.append(self.seen(files))
        tree.remove_driver()
        states.append(self.seen(files))
        assert len(set(map(repr, states))) == len(states)
        assert self.seen(files) == states[-1]
        assert files.stats.reads == 0

    def test_claims_of_others_change_nothing(
        self, tree: DraTree, files: DeviceMetadataFiles
    ) -> None:
        tree.write(both(vf()))
        before = self.seen(files)
        tree.write(both(vf(), claim="other"), claim="other")
        assert self.seen(files) == before


def test_another_file_system_is_not_entered(tree: DraTree, files: DeviceMetadataFiles) -> None:
    path = tree.write(both(vf()))
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if os.readlink(f"/proc/self/fd/{descriptor}") != str(path.parent):
            return found
        return os.stat_result([*found[:2], found.st_dev + 1, *found[3:]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fstat", fstat)
        (found,) = read(files)
    assert "another file system" in str(found.outcome)
