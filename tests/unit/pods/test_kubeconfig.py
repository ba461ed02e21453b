"""The fields of a kubeconfig that are used, and those that are refused. No file is opened."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.pods.http.kubeconfig import Kubeconfig, selected

from tests.support.fakes.kubeconfigs import HIDDEN, document


class Unusable(Exception):
    pass


def refusal(made: object) -> str:
    with pytest.raises(Unusable) as refused:
        selected(json.dumps(made).encode(), Unusable)
    return str(refused.value)


class TestSelected:
    def test_the_current_context_names_cluster_and_user(self) -> None:
        made = document()
        made["clusters"].insert(0, {"name": "other", "cluster": {"server": "https://192.0.2.9"}})
        made["users"].append({"name": "other", "user": {"token": "other"}})
        found = selected(yaml.safe_dump(made).encode(), Unusable)
        assert (found.cluster.server, found.user.token) == ("https://192.0.2.1", HIDDEN)

    def test_lists_that_are_null_are_read_as_empty(self) -> None:
        """As `kubectl config set-credentials --exec-command` writes them."""
        entry = {"apiVersion": "v1", "command": "login", "args": None, "env": None}
        found = selected(json.dumps(document({"exec": entry})).encode(), Unusable)
        assert found.user.exec is not None
        assert not found.user.exec.args and not found.user.exec.env


class TestRefused:
    @pytest.mark.parametrize(
        ("user", "cluster", "said"),
        [
            ({}, {}, "no token, no client certificate"),
            ({"client-certificate": "a.crt"}, {}, "no token, no client certificate"),
            ({"username": "admin", "password": HIDDEN}, {}, "no token, no client certificate"),
            ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider"),
            (None, {"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify"),
            (None, {"proxy-url": "http://proxy.example"}, "proxy-url"),
            (None, {"certificate-authority": ""}, "no certificate-authority"),
            (
                {"exec": {"apiVersion": "v1", "command": "a", "interactiveMode": "Always"}},
                {},
                "needs a terminal",
            ),
            ({"token": 5}, {}, "Expected `str`, got `int`"),
        ],
    )
    def test_a_context_the_agent_must_not_use_is_refused(
        self, user: dict[str, Any] | None, cluster: dict[str, Any], said: str
    ) -> None:
        found = refusal(document(user, cluster))
        assert said in found and HIDDEN not in found

    @pytest.mark.parametrize(
        "more",
        [
            {"current-context": "absent"},
            {"clusters": []},
            {"users": None},
            {"users": [{"name": "agent", "user": {"token": HIDDEN}}] * 2},
        ],
    )
    def test_a_name_that_is_not_there_once_is_refused(self, more: dict[str, Any]) -> None:
        assert "current-context" in refusal(document(**more))

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            f"token: '{HIDDEN}".encode(),
            f"{HIDDEN}: &a *b".encode(),
            b"a: 2026-99-99",
            b"[" * 100_000,
            b"\xff\xfe\x00",
            b"a: !!int ''",
            b"a: !!timestamp x",
            b"a: !!bool x",
        ],
    )
    def test_a_broken_file_is_refused_without_quotes(self, content: bytes) -> None:
        with pytest.raises(Unusable) as refused:
            selected(content, Unusable)
        assert HIDDEN not in str(refused.value)

    @given(st.binary(max_size=200))
    def test_any_bytes_are_refused_or_read(self, content: bytes) -> None:
        try:
            assert isinstance(selected(content, Unusable), Kubeconfig)
        except Unusable as refused:
            assert str(refused)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
        st.sampled_from(["contexts", "clusters", "users", "current-context"]),
    )
    def test_any_shape_is_refused_or_read(self, value: object, key: str) -> None:
        more: dict[str, Any] = {key: value}
        made = json.dumps(document(**more)).encode()
        try:
            assert isinstance(selected(made, Unusable), Kubeconfig)
        except Unusable as refused:
            assert HIDDEN not in str(refused)
