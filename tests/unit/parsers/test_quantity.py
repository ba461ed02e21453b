"""Amounts of bytes as Kubernetes writes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.quantity import MAX_BYTES, is_whole, parse_bytes, parse_cores

SUFFIXES = ["", *"numkMGTPE", *(f"{prefix}i" for prefix in "KMGTPE")]


@pytest.mark.parametrize(
    ("quantity", "amount"),
    [
        ("0", 0),
        ("512Mi", 512 * 2**20),
        ("2Gi", 2**31),
        ("1.5Gi", 3 * 2**29),
        ("1G", 10**9),
        ("1k", 1000),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E+3", 1000),
        ("12e-1", 2),
        (".5Ki", 512),
        ("5.", 5),
        ("+1", 1),
        ("100m", 1),
        ("1e-999999999999", 1),
        ("0e999999999999", 0),
        (1073741824, 2**30),
        (1.5, 2),
        (1e18, 10**18),
        (None, 0),
    ],
)
def test_a_quantity_is_its_whole_bytes(quantity: object, amount: int) -> None:
    assert parse_bytes(quantity, read="") == amount


@pytest.mark.parametrize(
    "quantity",
    [
        "",
        " 1Gi",
        "1 Gi",
        "1ki",
        "1mi",
        "1K",
        "1gi",
        "1GiB",
        "1e",
        "Gi",
        ".",
        "-1",
        "--1",
        "0x10",
        "\u0661",
        "1_000",
        "NaN",
        "8Ei",
        "1e999999999999",
        "1" * 65,
        pytest.param(10**5000, id="a number of 5000 digits"),
        -5,
        float("inf"),
        float("nan"),
        True,
        [],
        {"a": 1},
    ],
)
def test_an_invalid_amount_is_refused_with_its_place(quantity: object) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        parse_bytes(quantity, read="container app of pod a/b")
    assert refused.value.reason is Reason.QUANTITY_MALFORMED
    assert refused.value.read == "container app of pod a/b"
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        ({"a": 1}, "An object is no amount of CPUs."),
        ([], "A list is no amount of CPUs."),
        (True, "True or false is no amount of CPUs."),
        (-5, "-5 is no amount of CPUs."),
        ("many", "'many' is no amount of CPUs."),
        ("", "'' is no amount of CPUs."),
    ],
)
def test_a_wrong_value_is_named_in_words_of_json(quantity: object, words: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        parse_cores(quantity, read="")
    assert refused.value.message == words


@given(
    st.decimals(min_value=0, max_value=10**9, places=6, allow_nan=False), st.sampled_from(SUFFIXES)
)
def test_the_kubernetes_client_reads_the_same(number: object, suffix: str) -> None:
    theirs = math.ceil(parse_quantity(f"{number:f}{suffix}"))
    try:
        ours = parse_bytes(f"{number:f}{suffix}", read="")
    except FailedPrecondition:
        assert theirs > MAX_BYTES
    else:
        assert ours == theirs


@given(st.integers(0, 10**6), st.integers(-9, 9))
def test_the_kubernetes_client_reads_the_same_exponents(number: int, exponent: int) -> None:
    text = f"{number}e{exponent}"
    theirs = math.ceil(parse_quantity(text))
    assert parse_bytes(text, read="") == theirs


@given(st.text(max_size=20) | st.from_regex(r"[-+.0-9eEKMGi]{1,20}", fullmatch=True))
def test_any_text_is_an_amount_or_the_typed_error(text: str) -> None:
    try:
        assert 0 <= parse_bytes(text, read="") <= MAX_BYTES
    except FailedPrecondition:
        pass


@given(st.decimals(min_value=0, max_value=10**6, places=4, allow_nan=False))
def test_whole_numbers_are_those_of_the_kubernetes_client(number: object) -> None:
    for suffix in ("", "m", "k"):
        theirs = parse_quantity(f"{number:f}{suffix}")
        assert is_whole(f"{number:f}{suffix}") == (theirs >= 1 and theirs == theirs.to_integral())
