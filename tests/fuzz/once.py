"""One target under atheris: `python -m tests.fuzz.once NAME CORPUS SECONDS`.

libFuzzer prints what it does; an input that is a finding is written beside the corpus.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["netutil.agent", "netutil.client"]):
    from tests.fuzz.registry import targets

_MAX_MEBIBYTES = 1024
_MAX_SECONDS = 20
"""For one input: the machine may be busy."""


def main() -> None:
    """Run until the time is over (exit 0) or there is a finding."""
    name, corpus, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    faulthandler.enable()
    # It has a line for each bad pod.
    logging.getLogger("netutil.agent.pods.model").setLevel(logging.ERROR)
    target = targets()[name]
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = corpus.with_name("seeds")
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    words = corpus.with_name("words")
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words if len(word) <= 64))
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-max_len={target.largest_bytes}",
            f"-timeout={_MAX_SECONDS}",
            f"-rss_limit_mb={_MAX_MEBIBYTES}",
            *([f"-dict={words}"] if target.words else []),
            f"-artifact_prefix={corpus.with_name('findings')}/",
            "-print_final_stats=1",
            str(corpus),
            str(seeds),
        ],
        target.run,
    )
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
