"""Label selectors as kubectl takes them with `-l`. Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_SPLIT = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\Z")
_EQUAL = re.compile(r"(?P<key>[^\s!=]+)\s*(?P<operator>==|!=|=)\s*(?P<value>[^\s!=]*)\Z")
_EXISTS = re.compile(r"(?P<not>!?)\s*(?P<key>[^\s!=()]+)\Z")

Matches = Callable[[Mapping[str, str]], bool]
"""Whether labels match."""


def parse_selector(text: str) -> Matches:
    """A predicate for labels that satisfy all requirements. ValueError for a malformed selector."""
    requirements = [_requirement(part.strip()) for part in _SPLIT.split(text)]
    return lambda labels: all(matches(labels) for matches in requirements)


def _requirement(text: str) -> Matches:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUAL.match(text):
        key, value = found["key"], found["value"]
        if found["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(text):
        key = found["key"]
        if found["not"]:
            return lambda labels: key not in labels
        return lambda labels: key in labels
    raise ValueError(f"{text!r} is not a label selector")
