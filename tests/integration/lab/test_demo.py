"""`make demo`."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support.lab.observing import needs_lab, traces
from tests.support.repository import ROOT


def test_the_demo_names_its_needs_in_one_line_without_root() -> None:
    done = demo("import os; os.geteuid = lambda: 1000; ")

    assert done.returncode == 1
    assert re.fullmatch(r"netutil demo: needs root.*\n", done.stderr)
    assert done.stdout == ""


def demo(before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}import sys; from tests.support.lab.demo import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"COLUMNS": "120"},
        cwd=ROOT,
    )


@pytest.mark.root
@needs_lab
def test_the_demo_shows_two_answers_and_a_refusal() -> None:
    done = demo()

    assert (done.returncode, done.stderr) == (0, "")
    assert "trading/feed-handler $ netutil" in done.stdout
    assert "telco/upf $ netutil" in done.stdout
    assert "10.1.2.3" in done.stdout
    assert "198.51.100.7" in done.stdout
    assert "not in a pod" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120
    (name,) = set(re.findall(r"netutil-lab-\d+-\d+-\d+-[0-9a-f]{6}", done.stdout))
    assert traces(name) == []
