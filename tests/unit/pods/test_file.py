from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.sources import file as module
from netutil.agent.pods.sources.file import FileSource

from tests.support.fakes.kubelet import list_json, pod_json

LONG_AGO = 1_700_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pods"


def write(path: Path, content: bytes, age: int = LONG_AGO) -> None:
    """Replace the file, as its writer should, with one that is not just written."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.utime(new, (age, age))
    new.rename(path)


def names(source: FileSource) -> list[str]:
    return [pod.full_name for pod in source.fetch()]


def failure_of(source: FileSource) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        source.fetch()
    assert caught.value.reason is Reason.POD_LIST_UNAVAILABLE
    assert caught.value.read == source.describe()
    return caught.value


@pytest.mark.parametrize("as_yaml", [False, True], ids=["JSON", "YAML"])
def test_a_list_is_read_in_both_notations(as_yaml: bool, path: Path) -> None:
    content = list_json(pod_json(annotations={"note": "a\nb: c"}))
    write(path, yaml.safe_dump(json.loads(content)).encode() if as_yaml else content)
    (pod,) = FileSource(str(path)).fetch()
    assert pod.full_name == "default/web"
    assert pod.metadata.annotations == {"note": "a\nb: c"}


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    write(path, list_json(pod_json()))
    source = FileSource(str(path))
    assert source.fetch() is source.fetch()


def test_a_replaced_file_is_read_again(path: Path) -> None:
    write(path, list_json(pod_json("one")))
    source = FileSource(str(path))
    assert names(source) == ["default/one"]
    write(path, list_json(pod_json("two")))
    assert names(source) == ["default/two"]


def test_a_switched_link_is_followed(path: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "pods", list_json(pod_json(name)))
    (tmp_path / "..data").symlink_to("one")
    path.symlink_to("..data/pods")
    source = FileSource(str(path))
    assert names(source) == ["default/one"]
    (tmp_path / "..new").symlink_to("two")
    os.rename(tmp_path / "..new", tmp_path / "..data")
    assert names(source) == ["default/two"]


def test_a_file_written_twice_within_one_tick_is_read_again(path: Path) -> None:
    path.write_bytes(list_json(pod_json("one")))
    before = path.stat()
    source = FileSource(str(path))
    assert names(source) == ["default/one"]
    path.write_bytes(list_json(pod_json("two")))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(source) == ["default/two"]


def test_a_half_written_file_is_an_error_until_it_is_complete(path: Path) -> None:
    whole = list_json(pod_json())
    write(path, whole[:40])
    source = FileSource(str(path))
    assert "truncated (of 40 bytes)" in failure_of(source).message
    write(path, whole)
    assert names(source) == ["default/web"]
    write(path, b"kind: PodList\nitems: [\n")
    assert "line 3" in failure_of(source).message
    write(path, b"")
    assert "it holds no object, but " in failure_of(source).message


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b"items: 2024-99-99\n",
        b"!!python/object:os.system {}",
        b"--- a\n--- b\n",
        b"\xff\xfe\x00",
        b"? [a]\n: b\n? {a: b}\n: c",
        b"a: &x [*x]\nitems: 3",
        b"0x: !!int ''\n",
        b"{kind: PodList}",
    ],
)
def test_a_file_without_a_list_is_an_error_of_one_sentence(content: bytes, path: Path) -> None:
    write(path, content)
    failure = failure_of(FileSource(str(path)))
    assert failure.message.startswith("The pod list file cannot be used: ")
    assert "\n" not in failure.message and len(failure.message) < 500


def test_a_missing_file_is_reported_and_read_when_it_comes(path: Path) -> None:
    source = FileSource(str(path))
    assert failure_of(source).message == (
        "The pod list file cannot be read: No such file or directory."
    )
    write(path, list_json(pod_json()))
    assert names(source) == ["default/web"]
    source.close()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a FIFO", "a directory"])
def test_only_a_regular_file_is_opened(make: Callable[[Path], None], path: Path) -> None:
    make(path)
    assert "no regular file" in failure_of(FileSource(str(path))).message


def test_a_file_past_the_bound_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    write(path, b" " * 101)
    assert "larger than 100 bytes" in failure_of(FileSource(str(path))).message


def test_aliases_that_expand_beyond_memory_are_refused(path: Path) -> None:
    """Each line names the one before nine times: 600 bytes for 9 ** 12 texts."""
    lines = ["a0: &a0 [x]"]
    for number in range(1, 13):
        nine = ",".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} [{nine}]")
    for last in ("kind: *a12\nitems: []", "items: [{<<: *a12}]"):
        write(path, "\n".join([*lines, last]).encode())
        assert "it has an alias" in failure_of(FileSource(str(path))).message


@pytest.mark.parametrize("opening", ["[", "[{a: ", "- ", "? "])
def test_nesting_costs_no_more_than_the_levels_that_are_allowed(
    opening: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libyaml's own time for so many open brackets grows with their square."""
    parse, events = yaml.parse, 0

    def counting(*arguments: Any, **more: Any) -> Iterator[Any]:
        nonlocal events
        for event in parse(*arguments, **more):
            events += 1
            yield event

    monkeypatch.setattr(yaml, "parse", counting)
    write(path, (opening * 100_000).encode())
    assert "nested deeper than 100 levels" in failure_of(FileSource(str(path))).message
    assert 1 < events <= 3 * module._MAX_NESTING


def test_an_alias_costs_no_more_than_the_text_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = iter([yaml.AliasEvent("a")])
    monkeypatch.setattr(yaml, "parse", lambda *_, **__: events)
    write(path, b"items: []")
    assert "it has an alias" in failure_of(FileSource(str(path))).message


def test_a_kind_that_is_no_text_is_no_list(path: Path) -> None:
    write(path, b"kind: [PodList]\nitems: []\n")
    assert "`kind` is no text" in failure_of(FileSource(str(path))).message


def test_a_time_without_quotes_is_text_in_yaml(path: Path) -> None:
    write(
        path,
        b"""
kind: PodList
items:
- metadata:
    name: web
    uid: u
    creationTimestamp: 2018-03-01T10:00:00Z
    labels: {since: 2018-03-01, sign: =}
    annotations: {port: 9090, on: "yes", network: [a]}
  status:
    startTime: 2018-03-01T10:00:01Z
    podIP: null
    containerStatuses:
    - name: app
      state: {running: {startedAt: 2018-03-01T10:00:02Z}}
""",
    )
    (pod,) = FileSource(str(path)).fetch()
    ((_, status),) = pod.container_statuses
    assert status.started_at == datetime(2018, 3, 1, 10, 0, 2, tzinfo=UTC)
    assert pod.metadata.labels == {"since": "2018-03-01", "sign": "="}
    assert pod.metadata.annotations is not None
    assert "port" not in pod.metadata.annotations
    assert set(pod.not_understood) == {
        "metadata.annotations[port]",
        "metadata.annotations[network]",
        "metadata.annotations[True]",  # the name `on` is a truth value in YAML 1.1
        "status.podIP",
    }


@pytest.mark.parametrize("tag", ["!!timestamp 2018-03-01T10:00:02Z", "!!binary aGk="])
def test_values_of_yaml_alone_are_unknown(tag: str, path: Path) -> None:
    write(path, f"items: [{{metadata: {{name: a, uid: u}}, status: {{phase: {tag}}}}}]".encode())
    (pod,) = FileSource(str(path)).fetch()
    assert (pod.status.phase, pod.not_understood) == ("", ("status.phase",))


def test_unknown_values_of_a_file_are_counted(path: Path) -> None:
    write(path, b'{"items":[{"metadata":{"name":"a","uid":"u"},"spec":{"nodeName":7}},{}]}')
    flaws = Flaws()
    assert len(FileSource(str(path), flaws).fetch()) == 1
    assert (flaws.fields, flaws.entries) == (1, 1)
    assert flaws.last_entry == "item 1: $.metadata is missing"
