"""The namespaces that need no further reading, and the process that is read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from netutil.agent.facts.links import network_namespace as namespace_of
from netutil.agent.facts.network_state import (
    NamespaceChangedError,
    open_held,
    read_expected,
)

from tests.support.namespaces import Namespace, network_namespace

pytestmark = pytest.mark.root


@pytest.fixture
def process() -> Iterator[Namespace]:
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces")
    with network_namespace() as made:
        yield made


def test_links_of_equal_names_are_counted_by_index_alone(process: Namespace) -> None:
    within = ["nsenter", "-t", str(process.pid), "-n"]
    pair = [b"ip", b"link", b"add", b"a\xff", b"type", b"veth", b"peer", b"name", b"a\xfe"]
    subprocess.run([*within, *pair], check=True)
    held = open_held(process.directory, namespace_of(process.directory))
    try:
        reading = held.read(process.directory)
    finally:
        held.close()
    assert [link.name for link in reading.links] == ["lo", *2 * ["a\N{REPLACEMENT CHARACTER}"]]
    assert not reading.is_inline


def test_no_other_namespace_is_read_than_the_expected(process: Namespace) -> None:
    found = namespace_of(process.directory)
    assert [link.name for link in read_expected(process.directory, found)] == ["lo"]
    with network_namespace() as other, pytest.raises(NamespaceChangedError):
        read_expected(other.directory, found)
