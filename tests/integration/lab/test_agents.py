"""Agents in the lab: ready when they listen, reported with their log when they fail."""

from __future__ import annotations

import json
import os
import sys
import urllib.request

import pytest

from tests.support.lab import AgentFailed, Lab
from tests.support.lab.observing import FAKE_AGENT, needs_lab


@pytest.mark.root
@needs_lab
def test_an_agent_is_ready_when_it_listens_and_stops_at_sigterm(lab: Lab) -> None:
    agent = lab.agent("--log-level=debug", command=FAKE_AGENT)

    assert os.readlink(f"/proc/{agent.pid}/exe") == os.path.realpath(sys.executable)
    assert f"--pod-source=file:{lab.directory}/pods.json" in agent.stderr_text()
    second = lab.agent(command=FAKE_AGENT)
    assert agent.stop() == 0
    assert second.running
    assert not agent.running


@pytest.mark.root
@needs_lab
def test_the_error_for_an_agent_that_ends_early_has_its_log(lab: Lab) -> None:
    with pytest.raises(AgentFailed, match="ended with 3:\nno such flag"):
        lab.agent(command=["sh", "-c", "echo no such flag >&2; exit 3"])


@pytest.mark.root
@needs_lab
def test_the_real_agent_answers_a_container(lab: Lab) -> None:
    container = lab.pod("web", namespace="shop").container("app", env={"A": "1"})
    agent = lab.agent()

    done = container.run([sys.executable, "-m", "netutil.client", "whoami", "-o", "json"])

    assert json.loads(done.stdout)["name"] == "web", done.stderr
    with urllib.request.urlopen(f"{agent.metrics_url}/healthz", timeout=5) as answer:
        assert answer.status == 200
    assert agent.stop() == 0
