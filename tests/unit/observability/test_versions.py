"""The versions: `--version`, the first line of the log, `node doctor`, `netutil_build_info`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from netutil.agent import __main__ as command
from netutil.agent import config
from netutil.agent.admin import checks
from netutil.agent.grpcserver import http2
from netutil.agent.observability import build_info
from netutil.agent.observability.build_info import is_compiled, read_build_info
from netutil.agent.observability.metrics import Metrics
from netutil.client.cli.main import main as netutil

TEXT = re.escape(version("kube-netutil")) + r" \(Python 3\.[0-9.]+, grpcio [0-9.]+"


def test_the_agent_prints_its_versions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        config.parse(["--version"], {})
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"netutil-agent {TEXT}, hpack [0-9.]+, protobuf [0-9.]+, \w+\)\n", printed)


def test_the_client_prints_its_versions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        netutil(["--version"])
    assert stop.value.code == 0
    assert re.fullmatch(rf"netutil {TEXT}\)\n", capsys.readouterr().out)


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_hpack(name: str) -> str:
        if name == "hpack":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(build_info, "version", without_hpack)
    with pytest.raises(SystemExit) as stop:
        config.parse(["--version"], {})
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "netutil-agent: the Python package hpack is missing: install kube-netutil[agent]\n"
    )


def test_a_missing_module_ends_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, command._extra_required():
        raise ModuleNotFoundError("No module named 'hpack.table'", name="hpack.table")
    assert stop.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_module_of_the_agent_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), command._extra_required():
        raise ModuleNotFoundError("No module named 'netutil.agent.gap'", name="netutil.agent.gap")


def test_the_first_line_of_the_log_has_the_versions(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    agent = [sys.executable, "-m", "netutil.agent", f"--socket={tmp_path}/file/net.sock"]
    agent += ["--admin-socket=", "--metrics-address=", f"--pod-source=file:{tmp_path}/pods.json"]
    done = subprocess.run(agent, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"agent: version {read_build_info()}" in done.stderr.splitlines()[0]


def test_the_doctor_has_the_versions() -> None:
    build = read_build_info()
    assert checks.versions(build) == checks.Check("version", "ok", str(build))


def test_the_metric_has_the_versions_as_labels() -> None:
    metrics, build = Metrics(), read_build_info()
    metrics.set_build_info(build)
    labels = {"version": build.version, "python": build.python, "grpcio": build.grpcio}
    labels["server"] = "compiled" if http2.__file__.endswith(".so") else "interpreted"
    assert metrics.registry.get_sample_value("netutil_build_info", labels) == 1


def test_a_server_is_compiled_where_python_loads_machine_code(tmp_path: Path) -> None:
    (tmp_path / "http2.py").touch()
    assert not is_compiled(tmp_path)
    (tmp_path / f"http2{EXTENSION_SUFFIXES[0]}").touch()
    assert is_compiled(tmp_path)
