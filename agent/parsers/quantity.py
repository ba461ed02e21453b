"""Parses quantities of Kubernetes: "2Gi", "1.5G", "1e9" bytes, "500m" of a CPU.

Source: the Kubernetes API reference, resource.Quantity (k8s.io/apimachinery,
pkg/api/resource/quantity.go), whose grammar is quoted in the pattern below.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.parsers.json_value import what_is

MAX_BYTES = 2**63 - 1
"""The largest value of a Quantity."""
_MAX_LENGTH = 64
_MAX_EXPONENT = 2 * _MAX_LENGTH
"""A number of `_MAX_LENGTH` digits is below 1 or above `MAX_BYTES` from there on."""

# <quantity> ::= <signedNumber><suffix>; <suffix> ::= <binarySI> | <decimalExponent> | <decimalSI>
_QUANTITY = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?:(?P<binary>[KMGTPE])i|[eE](?P<exponent>[+-]?[0-9]+)|(?P<decimal>[numkMGTPE]))?"
)
_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY_EXPONENTS = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


def parse_bytes(quantity: object, *, read: str) -> int:
    """Return a quantity in whole bytes; a part of a byte counts as one, as with Quantity.Value().

    A number is itself and null is 0, as in Go's decoding. Raises `FailedPrecondition`
    for what is no quantity, is negative, or is larger than `MAX_BYTES`. `read`
    names its source, for that error.
    """
    if quantity is None:
        return 0
    exact = _parsed(quantity)
    found = None if exact is None else math.ceil(exact)
    if found is None or found > MAX_BYTES:
        raise _malformed(quantity, read)
    return found


def parse_cores(quantity: object, *, read: str) -> float:
    """Return a quantity in CPUs: 1.5 for "1500m". Raises `FailedPrecondition` for what is none."""
    exact = _parsed(quantity)
    if exact is None or exact > MAX_BYTES:
        raise _malformed(quantity, read, "of CPUs", "500m or 2")
    return float(exact)


def is_same(one: object, other: object) -> bool:
    """Return whether two quantities are the same amount: "1" and "1000m"."""
    if one == other:
        return True
    exact = _parsed(one)
    return exact is not None and exact == _parsed(other)


def as_text(quantity: object) -> str:
    """Return a quantity as it is written; of what is none, what it is."""
    return _text(quantity)[:_MAX_LENGTH]


def is_whole(quantity: object) -> bool:
    """Return whether a quantity is a whole number of at least 1: "2", "2000m", "2e0"."""
    exact = _parsed(quantity)
    return exact is not None and exact >= 1 and exact.denominator == 1


def _parsed(quantity: object) -> Fraction | None:
    """Return the exact value, None for what is negative or no quantity."""
    text = _text(quantity)
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None or text.startswith("-"):
        return None
    return Fraction(match["number"]) * _multiplier(match)


def _text(quantity: object) -> str:
    if isinstance(quantity, str):
        return quantity
    if isinstance(quantity, bool) or not isinstance(quantity, int | float):
        return what_is(quantity)
    # str() of an integer of any length would not end soon.
    return str(quantity) if abs(quantity) <= MAX_BYTES else "a number that large"


def _multiplier(match: re.Match[str]) -> Fraction:
    if match["binary"]:
        return Fraction(2) ** _BINARY_EXPONENTS[match["binary"]]
    exponent = int(match["exponent"] or _DECIMAL_EXPONENTS.get(match["decimal"], 0))
    return Fraction(10) ** max(-_MAX_EXPONENT, min(exponent, _MAX_EXPONENT))


def _malformed(
    quantity: object, read: str, of_what: str = "of bytes", example: str = "512Mi or 2Gi"
) -> FailedPrecondition:
    text = as_text(quantity)
    shown = repr(text) if isinstance(quantity, str) else text
    return FailedPrecondition(
        Reason.QUANTITY_MALFORMED,
        f"{shown[:1].upper()}{shown[1:]} is no amount {of_what}.",
        read=read,
        advice=f"Write it as Kubernetes does, for example {example}.",
    )
