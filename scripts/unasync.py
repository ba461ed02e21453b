"""Generates client/rpc/sync.py from client/rpc/aio.py, so that each client is written once.

python -m scripts.unasync           write sync.py
python -m scripts.unasync --check   exit 1 if sync.py is not what aio.py gives
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

RPC = Path(__file__).parents[1] / "client" / "rpc"
SOURCE = RPC / "aio.py"
TARGET = RPC / "sync.py"
DOCSTRING = '''"""The synchronous clients. Generated from aio.py by `python -m scripts.unasync`."""
'''
SUBSTITUTIONS: tuple[tuple[str, str], ...] = (
    (r"import asyncio\nimport os\n", "import os\nimport threading\nimport time\n"),
    (r"from contextlib import nullcontext\n", ""),
    (r"nullcontext\(\)", "threading.Lock()"),
    (r"import grpc\.aio\n", ""),
    (r"grpc\.aio\.AioRpcError", "grpc.RpcError"),
    (r"grpc\.aio\.", "grpc."),
    (r"asyncio\.sleep", "time.sleep"),
    (r"\basync (def|with|for) ", r"\1 "),
    (r"\bawait ", ""),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\ba(close|iter|next)\b", r"\1"),
    (r"StopAsyncIteration", "StopIteration"),
    (r"\bAsync(Stream|Connection|Client|NodeClient|Cached)\b", r"\1"),
    (r"for one event loop", "for any number of threads"),
    (r"to be iterated over by one task", "to be iterated over by one thread"),
    (r"End the call; to be called by that task\.", "End the call, from any thread."),
)


def synchronous(source: str) -> str:
    """The synchronous module of the text of aio.py, as `ruff format` leaves it."""
    _, _, code = source.partition('"""\n\nfrom __future__')
    text = f"{DOCSTRING}\nfrom __future__{code}"
    for pattern, replacement in SUBSTITUTIONS:
        text, count = re.subn(pattern, replacement, text)
        if not count:
            raise ValueError(f"nothing in {SOURCE.name} matches {pattern}")
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "format", "--stdin-filename", TARGET, "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Write the module; with --check compare only."""
    generated = synchronous(SOURCE.read_text(encoding="utf-8"))
    if "--check" not in arguments:
        TARGET.write_text(generated, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == generated:
        return 0
    print(f"{TARGET} is not what {SOURCE.name} gives: run python -m scripts.unasync")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
