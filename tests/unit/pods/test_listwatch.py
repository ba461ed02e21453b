"""Lines, pages and events as text, before any server."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.apiserver import PODS
from netutil.agent.pods.sources.listwatch import (
    EventType,
    Expired,
    Lines,
    WatchFailed,
    decode_event,
    decode_page,
    decode_versions,
    is_older,
)
from netutil.agent.pods.store import PodStore

from tests.support.fakes.apiserver import pod, status
from tests.support.fakes.pushing_source import made


def event(kind: str, content: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": content}).encode()


def versioned(content: dict[str, Any], version: str = "7") -> dict[str, Any]:
    content["metadata"]["resourceVersion"] = version
    return content


class TestLines:
    @given(st.lists(st.text(alphabet="ab\r\v ", min_size=1)), st.integers(1, 7))
    def test_they_are_the_same_however_they_are_cut(self, texts: list[str], size: int) -> None:
        whole = "".join(f"{text}\n" for text in texts).encode()
        lines = Lines()
        found = [
            line
            for begin in range(0, len(whole), size)
            for line in lines.feed(whole[begin : begin + size])
        ]
        assert found == [text.encode() for text in texts if text.strip()]
        assert lines.is_between

    def test_an_incomplete_line_is_held_back(self) -> None:
        lines = Lines()
        assert lines.feed(b"one\ntwo") == [b"one"]
        assert not lines.is_between
        assert lines.feed(b"\n") == [b"two"]

    @pytest.mark.parametrize("chunk", [b"x" * 11, b"x" * 11 + b"\n", b"a\n" + b"x" * 11])
    def test_one_that_is_too_long_is_refused(self, chunk: bytes) -> None:
        with pytest.raises(PodListMalformed, match="larger than 10 bytes"):
            Lines(10).feed(chunk)

    def test_many_short_ones_are_not_too_long(self) -> None:
        assert len(Lines(10).feed(b"12345\n" * 100)) == 100


class TestEvents:
    @pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
    def test_a_change_has_its_pod_and_version(self, kind: str) -> None:
        found = decode_event(PODS, event(kind, versioned(pod(1, "web"))), Flaws())
        assert (found.type, found.version, found.uid) == (kind, "7", f"{1:032x}")
        assert found.object is not None
        assert found.object.full_name == "default/web"

    def test_a_bookmark_has_a_version_alone(self) -> None:
        found = decode_event(
            PODS, event("BOOKMARK", {"metadata": {"resourceVersion": "9"}}), Flaws()
        )
        assert (found.type, found.version, found.object) == (EventType.BOOKMARK, "9", None)

    @pytest.mark.parametrize("reason", ["Expired", "Gone"])
    def test_a_version_that_is_too_old_is_its_own_error(self, reason: str) -> None:
        with pytest.raises(Expired):
            decode_event(
                PODS, event("ERROR", status(410, reason, "too old resource version")), Flaws()
            )

    def test_another_error_keeps_its_own_words(self) -> None:
        with pytest.raises(WatchFailed, match=r"^500 no \[31m leader$"):
            decode_event(
                PODS, event("ERROR", status(500, "InternalError", "no\n\x1b[31m leader.")), Flaws()
            )

    def test_a_pod_that_cannot_be_identified_is_named_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad, flaws = versioned(pod(1, "bad")), Flaws()
        bad["metadata"]["uid"] = 7
        found = decode_event(PODS, event("MODIFIED", bad), flaws)
        assert (found.object, found.uid, found.version) == (None, "", "7")
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "left out; the first, an event of 'default/bad': $.metadata.uid is a number" in (
            record.getMessage()
        )
        assert (flaws.entries, flaws.fields) == (1, 0)

    @pytest.mark.parametrize("odd", [None, 7, True, [], {}], ids=repr)
    @pytest.mark.parametrize("name", ["labels", "generateName", "resourceVersion", "finalizers"])
    def test_odd_metadata_ends_no_stream(self, name: str, odd: object) -> None:
        content = versioned(pod(1, "web"))
        content["metadata"][name] = odd
        found = decode_event(PODS, event("MODIFIED", content), Flaws())
        assert found.object is not None
        assert found.object.full_name == "default/web"
        assert found.version == ("" if name == "resourceVersion" else "7")

    @pytest.mark.parametrize("metadata", [None, 7, "none", [], {"resourceVersion": None}], ids=repr)
    def test_an_object_without_metadata_ends_no_stream(self, metadata: object) -> None:
        found = decode_event(PODS, event("ADDED", {"metadata": metadata}), flaws := Flaws())
        assert (found.object, found.version, flaws.entries) == (None, "", 1)
        assert decode_event(PODS, event("BOOKMARK", {"metadata": metadata}), Flaws()).version == ""

    def test_a_deleted_pod_is_named_or_the_list_is_read_again(self) -> None:
        content = versioned(pod(1, "web"))
        content["metadata"]["name"] = None
        assert decode_event(PODS, event("DELETED", content), Flaws()).uid == f"{1:032x}"
        content["metadata"]["uid"] = None
        with pytest.raises(PodListMalformed, match="which pod was deleted"):
            decode_event(PODS, event("DELETED", content), Flaws())

    @given(st.binary(max_size=200))
    def test_any_bytes_are_events_or_refused(self, line: bytes) -> None:
        with pytest.raises(PodListMalformed):
            decode_event(PODS, line, Flaws())


class TestPages:
    def test_the_last_one_names_no_next(self) -> None:
        body = {"kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [pod(1)]}
        page = decode_page(PODS, json.dumps(body).encode(), Flaws())
        assert (len(page.objects), page.version, page.next_page) == (1, "5", "")

    def test_another_names_the_next(self) -> None:
        metadata = {"resourceVersion": "5", "continue": "token"}
        body = {"kind": "PodList", "metadata": metadata, "items": None}
        assert decode_page(PODS, json.dumps(body).encode(), Flaws()).next_page == "token"

    def test_a_page_that_does_not_say_what_follows_is_no_end(self) -> None:
        metadata = {"resourceVersion": "5", "continue": 7}
        body = {"kind": "PodList", "metadata": metadata, "items": []}
        with pytest.raises(PodListMalformed, match="continue"):
            decode_page(PODS, json.dumps(body).encode(), Flaws())

    @pytest.mark.parametrize("metadata", [{}, {"resourceVersion": ""}, {"resourceVersion": 5}])
    def test_one_without_a_version_is_none(self, metadata: dict[str, Any]) -> None:
        body = {"kind": "PodList", "metadata": metadata, "items": []}
        with pytest.raises(PodListMalformed):
            decode_page(PODS, json.dumps(body).encode(), Flaws())


class TestStore:
    def test_its_pods_are_the_same_object_until_one_differs(self) -> None:
        store = PodStore()
        store.replace(made("web", "new"))
        before = store.pods
        store.replace(made("web", "new")[::-1])
        store.put(made("web")[0])
        store.remove("unknown")
        assert store.pods is before
        store.put(made("web", annotations={"a": "b"})[0])
        assert store.pods is not before
        assert len(store.pods) == 2

    def test_the_list_lacks_a_removed_pod(self) -> None:
        store = PodStore()
        store.replace(made("web", "new"))
        store.remove(f"{1:032x}")
        assert [one.metadata.name for one in store.pods] == ["new"]

    def test_it_holds_no_more_than_its_bound(self) -> None:
        store = PodStore(most_pods=2)
        store.replace(made("a", "b"))
        store.put(made("a", annotations={"a": "b"})[0])
        with pytest.raises(PodListMalformed):
            store.put(made("a", "b", "c")[2])
        with pytest.raises(PodListMalformed):
            store.replace(made("a", "b", "c"))
        assert len(store.pods) == 2


class TestVersions:
    def test_they_are_those_of_the_pods_from_objects_or_metadata(self) -> None:
        whole = [versioned(pod(1), "5"), versioned(pod(2), "6")]
        bare = [{"metadata": one["metadata"]} for one in whole]
        found = [
            decode_versions(
                json.dumps({"metadata": {"resourceVersion": "9"}, "items": items}).encode()
            )
            for items in (whole, bare)
        ]
        assert found[0] == found[1]
        assert found[0].by_uid == {f"{1:032x}": "5", f"{2:032x}": "6"}
        assert found[0].version == "9"

    @pytest.mark.parametrize("item", [7, None, {"metadata": 7}, {"metadata": {"uid": 7}}])
    def test_an_invalid_pod_takes_nothing_from_the_others(self, item: object) -> None:
        document = {"metadata": {"resourceVersion": "9"}, "items": [item, versioned(pod(1), "5")]}
        found = decode_versions(json.dumps(document).encode())
        assert found.by_uid == {f"{1:032x}": "5"}

    @given(
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.integers() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["metadata", "items", "uid", "resourceVersion"]), inner
                )
            ),
            max_leaves=8,
        ).map(lambda document: json.dumps(document).encode())
    )
    def test_any_body_gives_versions_or_the_error_of_a_list(self, body: bytes) -> None:
        try:
            found = decode_versions(body)
        except PodListMalformed:
            return
        assert found.version

    @given(st.integers(0, 10**40), st.integers(0, 10**40))
    def test_numbers_are_compared_as_numbers(self, one: int, other: int) -> None:
        assert is_older(str(one), str(other)) == (one < other)

    @given(st.text(max_size=8), st.text(max_size=8))
    def test_versions_that_are_no_numbers_have_no_order(self, one: str, other: str) -> None:
        numbers = all(text.isascii() and text.isdigit() for text in (one, other))
        assert numbers or not is_older(one, other)

    def test_a_number_of_absurd_length_is_none(self) -> None:
        assert not is_older("1", "9" * 5000)
