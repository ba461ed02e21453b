"""Metrics and memory of an agent of the lab."""

from __future__ import annotations

import re
import urllib.request

import psutil

from tests.support.lab import LabAgent

MEBIBYTE = 1024 * 1024
MAX_GROWTH = 128 * MEBIBYTE
"""The manifest gives the agent 256 MiB; it has about 50 at its start."""


def memory(agent: LabAgent) -> int:
    return int(psutil.Process(agent.pid).memory_info().rss)


def metrics_text(agent: LabAgent) -> str:
    """What a scrape of an agent returns."""
    with urllib.request.urlopen(f"{agent.metrics_url}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


def metric(agent: LabAgent, name: str) -> float:
    """The value of one series; `name` is a regular expression with the labels."""
    (found,) = re.findall(rf"^{name} (\S+)$", metrics_text(agent), re.MULTILINE)
    return float(found)


def metric_total(agent: LabAgent, name: str) -> float:
    """The sum over all series of a name, 0 if the agent has none."""
    lines = metrics_text(agent).splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))
