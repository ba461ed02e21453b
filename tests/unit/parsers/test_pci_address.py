"""The texts that are PCI addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.parsers.addresses import normalise_pci_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0000:3b:02.1", "0000:3b:02.1"),
        ("0000:3B:1F.7", "0000:3b:1f.7"),
        ("00010000:00:00.0", "10000:00:00.0"),
        ("10000:E1:00.0", "10000:e1:00.0"),
        ("00000000:3B:02.1", "0000:3b:02.1"),
    ],
)
def test_an_address_is_spelled_as_sysfs_spells_it(text: str, address: str) -> None:
    assert normalise_pci_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3b:02.1",
        "000:3b:02.1",
        "000000000:3b:02.1",
        "0000:3b:02.8",
        "0000:3b:20.0",
        "0000:3b:02.1\n",
        " 0000:3b:02.1",
        "0000:3b:02",
        "0000:3b:02.1/..",
        "../0000:3b:02.1",
        "0000:3b:02.1\0",
        "\u0660000:3b:02.1",
        "mlx5_core.sf.4",
    ],
)
def test_anything_else_is_no_address(text: str) -> None:
    assert normalise_pci_address(text) is None


@given(
    st.text(max_size=30)
    | st.from_regex(r"[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7]", fullmatch=True)
)
def test_an_address_is_its_own_spelling_and_no_path(text: str) -> None:
    address = normalise_pci_address(text)
    if address is not None:
        assert normalise_pci_address(address) == address
        assert set(address) <= set("0123456789abcdef:.")
        assert ".." not in address
