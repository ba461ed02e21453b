"""The flags of netutil-csi."""

from __future__ import annotations

import hashlib
import re
from dataclasses import fields

import pytest
from netutil.agent.csi.config import MAX_SOCKET_PATH_BYTES, Config, parse

from tests.support.repository import ROOT

NODE = {"NODE_NAME": "node-1"}


def test_the_defaults_give_the_kubelets_paths() -> None:
    config = parse([], NODE)
    assert config.pods == "/var/lib/kubelet/pods"
    assert config.endpoint == "/var/lib/kubelet/plugins/csi.netutil/csi.sock"
    assert config.registry == "/var/lib/kubelet/plugins_registry"
    assert (config.source, config.node_id, config.check) == ("/run/netutil", "node-1", False)


def test_a_flag_wins_over_its_variable() -> None:
    environment = NODE | {"NETUTIL_CSI_SOURCE": "/a", "NETUTIL_CSI_KUBELET_ROOT": "/b"}
    config = parse(["--source=/c"], environment)
    assert (config.source, config.kubelet_root) == ("/c", "/b")


def test_a_long_node_name_becomes_its_checksum() -> None:
    longest = "n" * 128
    assert parse([f"--node-name={longest}"], {}).node_id == longest
    config = parse([f"--node-name={longest}n"], {})
    assert config.node_id == hashlib.sha256(f"{longest}n".encode()).hexdigest()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name="],
        ["--name=CSI.netutil"],
        ["--name=csi..netutil"],
        ["--name=../netutil"],
        ["--name=csi-.netutil"],
        ["--name=" + "n" * 64],
        ["--source=run/netutil"],
        ["--source=/"],
        ["--source=/run/netutil/"],
        ["--source=/run/../etc"],
        ["--kubelet-root=/var/lib/kubelet%20"],
        ["--kubelet-root=/var//lib"],
        ["--kubelet-root="],
        ["--node-name=Node"],
        ["--node-name=" + "n" * 254],
        ["--log-level=all"],
        ["--log-format=xml"],
        ["--kubelet=/x"],
    ],
)
def test_an_ill_formed_value_stops_the_start(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments, NODE)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert arguments[0].partition("=")[0] in said and said.count("\n") == 1


def test_a_missing_node_name_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([], {})
    assert "NODE_NAME" in capsys.readouterr().err


def test_a_path_too_long_for_a_socket_stops_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = len("/plugins_registry/csi.netutil-12345678-reg.sock")
    root = "/" + "k" * (MAX_SOCKET_PATH_BYTES - fixed - 1)
    parse([f"--kubelet-root={root}"], NODE)
    with pytest.raises(SystemExit):
        parse([f"--kubelet-root={root}k"], NODE)
    assert "--kubelet-root and --name are too long" in capsys.readouterr().err


def test_the_documented_flags_are_those_of_the_driver() -> None:
    text = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    section = text.partition("## The CSI driver")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `--([a-z-]+)` \| (\S+) \|", section, re.MULTILINE)
    config = parse([], {"NODE_NAME": "node-name"})
    assert {name.replace("-", "_") for name, _ in rows} == {one.name for one in fields(Config)}
    for name, default in rows:
        value = getattr(config, name.replace("-", "_"))
        expected = {True: "on", False: "off", "node-name": "`$NODE_NAME`"}.get(value, f"`{value}`")
        assert default == expected


def test_the_version_names_what_the_driver_depends_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--version"], {})
    assert ended.value.code == 0
    assert re.fullmatch(r"netutil-csi \S+ \(Python \S+, grpcio \S+\)\n", capsys.readouterr().out)
