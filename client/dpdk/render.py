"""The EAL arguments of a container as text. Pure."""

from __future__ import annotations

import shlex
from typing import Any

from netutil.client.documents import to_json
from netutil.client.dpdk.eal import CommandLine
from netutil.client.errors import InvalidArgument
from netutil.client.text import harmless


def render_command_line(line: CommandLine, output: str, *, explain: bool) -> str:
    """The arguments with an ended last line, as "args", "shell" or "json".

    `args` is for $(…), which splits at blanks and ignores quotes: raises `InvalidArgument` for an
    argument that it would split or change. `shell` is quoted, for eval. With `explain` each
    argument has its own line and a comment with its source.
    """
    if output == "json":
        return to_json(_document(line))
    if explain:
        return _explained(line)
    if output == "shell":
        return shlex.join(line.words) + "\n"
    for word in line.words:
        if shlex.quote(word) != word:
            raise InvalidArgument(
                f"argument {word!r} needs quotes, which -o args does not have",
                "INVALID_ARGUMENT",
                reason="NEEDS_QUOTES",
                advice="use -o shell with eval, or -o json",
            )
    return " ".join(line.words) + "\n"


def _explained(line: CommandLine) -> str:
    rows = [(shlex.join(one.words), one.source) for one in line.arguments]
    width = max(len(words) for words, _ in rows)
    return "".join(f"{words:<{width}}  # {_one_line(source)}\n" for words, source in rows)


def _one_line(text: str) -> str:
    return harmless(text.replace("\n", " "))


def _document(line: CommandLine) -> dict[str, Any]:
    return {
        "args": list(line.words),
        "arguments": [{"words": list(one.words), "source": one.source} for one in line.arguments],
        "warnings": list(line.warnings),
    }
