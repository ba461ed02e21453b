"""Takeover of the socket, stop, and what a wrong flag says."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from netutil.agent import config

from tests.support.nodes.agent_node import Node, netutil

pytestmark = pytest.mark.xdist_group("service")


def test_a_second_agent_takes_the_socket_from_the_first(node: Node) -> None:
    before = os.lstat(node.agent.socket).st_ino
    second = node.lab.agent()
    try:
        taken = os.lstat(node.agent.socket).st_ino
        assert taken != before
        assert netutil(node.upf_app, "whoami")["name"] == "upf"
    finally:
        assert second.stop() == 0
    # The newer one's socket went with it, and the first takes the path back.
    deadline = time.monotonic() + 30
    while not Path(node.agent.socket).exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert netutil(node.upf_app, "whoami")["name"] == "upf"


def test_sigterm_ends_with_0_and_removes_its_own_socket(node: Node) -> None:
    node.agent.stop()
    assert not Path(node.agent.socket).exists()
    node.agent = node.lab.agent()


def test_an_agent_that_stops_leaves_a_newer_agents_socket(node: Node) -> None:
    first = node.agent
    node.agent = node.lab.agent()
    assert first.stop() == 0
    assert Path(node.agent.socket).exists()
    assert netutil(node.feed_app, "whoami")["name"] == "feed-handler"


def test_check_says_whether_the_agent_is_well(node: Node) -> None:
    command = [sys.executable, "-m", "netutil.agent", "--check", "--socket"]
    assert subprocess.run([*command, node.agent.socket], check=False, timeout=30).returncode == 0
    missing = subprocess.run(
        [*command, "/tmp/no-such.sock"], check=False, timeout=30, capture_output=True, text=True
    )
    assert missing.returncode == 1
    assert missing.stderr.startswith("netutil-agent: /tmp/no-such.sock: ")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--pod-source", "etcd"], "--pod-source"),
        (["--kubelet-url", "ftp://x"], "--kubelet-url"),
        (["--kubelet-verify", "maybe"], "--kubelet-verify"),
        (["--max-connections", "0"], "--max-connections"),
        (["--pod-refresh", "nan"], "--pod-refresh"),
        (["--metrics-address", "9464"], "--metrics-address"),
        (["--socket", "relative"], "--socket"),
        (["--socket", "/" + "x" * 120], "--socket"),
        (["--log-format", "xml"], "--log-format"),
        (["--device-plugin", "netutil"], "--device-plugin"),
        (["--device-plugin", "kubernetes.io/netutil"], "--device-plugin"),
        (["--device-plugin", "example.com/net\nutil"], "--device-plugin"),
        (["--device-plugin-dir", "plugins"], "--device-plugin-dir"),
        (["--device-plugin-dir", "/" + "x" * 85], "--device-plugin-dir"),
        *(
            (
                ["--device-plugin", "a.example/b", "--socket", path],
                "--socket a directory of its own",
            )
            for path in (
                "/n.sock",
                "//n.sock",
                "/run/n.sock",
                "/run/x/../n.sock",
                "/var/run/n.sock",
            )
        ),
        (["--no-such-flag"], "--no-such-flag"),
        (["--kubelet-client-cert", "/c"], "--kubelet-client-key"),
    ],
)
def test_an_ill_formed_flag_stops_with_one_line_and_2(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        config.parse(argv, {})
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.count("\n") == 1


def test_an_environment_variable_is_read_and_a_flag_wins() -> None:
    environment = {"NETUTIL_MAX_CONNECTIONS": "7", "NODE_IP": "fd00::1"}
    assert config.parse([], environment).limits.connections.total == 7
    assert config.parse(["--max-connections", "8"], environment).limits.connections.total == 8
    assert config.parse([], environment).kubelet.api.url == "https://[fd00::1]:10250"


def test_an_ill_formed_environment_variable_stops_too() -> None:
    with pytest.raises(SystemExit) as stop:
        config.parse([], {"NETUTIL_MAX_CONNECTIONS": "many"})
    assert stop.value.code == 2
