"""The names that a device plugin may register: those that the kubelet accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.device_plugin.resource_name import is_extended_resource_name


@pytest.mark.parametrize(
    "name",
    [
        "example.com/netutil",
        "netutil.example.com/agent",
        "a/b",
        "example.com/A_b.c-D9",
        "example.com/" + "a" * 63,
        ".".join(["a" * 60] * 4) + "/x",
    ],
)
def test_an_extended_resource_is_accepted(name: str) -> None:
    assert is_extended_resource_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "netutil",
        "/netutil",
        "example.com/",
        "example.com/a/b",
        "Example.com/netutil",
        "example..com/netutil",
        "-example.com/netutil",
        "example.com-/netutil",
        "example.com/-a",
        "example.com/a-",
        "example.com/a b",
        "example.com/a\n",
        "example.com\n/a",
        "example.com/ä",
        "example.com/" + "a" * 64,
        "a" * 245 + "/x",
        "kubernetes.io/netutil",
        "net.kubernetes.io/util",
        "requests.example.com/netutil",
    ],
)
def test_another_name_is_rejected(name: str) -> None:
    assert not is_extended_resource_name(name)


@given(st.text(alphabet="aA0.-_/ \n\x00", max_size=300))
def test_an_accepted_name_has_one_slash_and_fits_a_quota(name: str) -> None:
    if is_extended_resource_name(name):
        domain, name_part = name.split("/")
        assert len(f"requests.{domain}") <= 253
        assert 1 <= len(name_part) <= 63
        assert domain == domain.lower()
        assert not set(name) & set(" \n\x00")


@given(st.text(max_size=50), st.text(max_size=50))
def test_any_text_is_judged(domain: str, name: str) -> None:
    assert is_extended_resource_name(f"{domain}/{name}") in (True, False)
