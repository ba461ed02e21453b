"""Describes the type of a JSON or YAML value. Pure."""

from __future__ import annotations


def what_is(value: object) -> str:
    """Return what a value is in words of JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case "":
            return "empty text"
        case str():
            return "text" if is_text(value, 0) else "text that is not Unicode"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case bytes():
            return "text that is not UTF-8"
        case _:
            return f"a {type(value).__name__}"


def is_text(value: str, least: int) -> bool:
    """Return whether text is long enough and Unicode: no surrogate, which no answer can hold."""
    if len(value) < least:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
