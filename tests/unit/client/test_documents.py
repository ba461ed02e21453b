from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from netutil.client import Environment, NetworkStatus
from netutil.client.documents import document, to_json, to_yaml
from netutil.client.rpc.convert import result

from tests.support.answers import core as answers

# A value that came through protobuf has no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ENVS = st.dictionaries(TEXT, TEXT, max_size=5)


@given(ENVS)
def test_json_is_exact_and_printable_ascii(envs: dict[str, str]) -> None:
    text = to_json(Environment(envs, 0, 0))
    assert json.loads(text)["envs"] == envs
    assert text.isascii() and text.replace("\n", "").isprintable()


@given(ENVS)
def test_yaml_is_exact_and_printable_ascii(envs: dict[str, str]) -> None:
    text = to_yaml(Environment(envs, 0, 0))
    assert yaml.safe_load(text)["envs"] == envs
    assert text.isascii() and text.replace("\n", "").isprintable()


def test_times_sources_and_extensions_are_plain() -> None:
    plain: dict[str, Any] = document(result(NetworkStatus, answers.network_status()))
    assert plain["observed_at"] == "2026-01-31T12:00:00.250000Z"
    assert plain["source"] == "network-status" and type(plain["source"]) is str
    assert plain["status"][1]["extensions"]["example.com/list"] == [1, 0.5, {"none": None}]
    assert plain["status"][0]["device_info"] is None
    assert json.loads(to_json(plain)) == yaml.safe_load(to_yaml(plain)) == plain
