"""The wheel in clean environments: plain, with each extra, and with the lowest versions."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distribution.environments import CONSTRAINTS, Environment
from tests.support.answers.core import cpu, pod
from tests.support.answers.devices import everything
from tests.support.fakes.agent import FakeAgent, serving
from tests.support.repository import ROOT

pytestmark = [pytest.mark.packages, pytest.mark.xdist_group("packages"), pytest.mark.timeout(600)]
PLAIN = {"kube-netutil", "grpcio", "protobuf", "googleapis-common-protos"}
CALLS = """
import asyncio, sys
from netutil.client import AsyncClient, Client, NotFound

path = sys.argv[1]
with Client(path) as agent:
    print(agent.pod().name, agent.cpu().cpuset, len(agent.all().interfaces.interfaces))
    try:
        agent.variable("NOT_SET")
    except NotFound as error:
        print(error.reason)

async def name():
    async with AsyncClient(path) as agent:
        return (await agent.pod()).name

print(asyncio.run(name()))
"""
CALLED = (
    f"{pod().name} {cpu().cpuset} {len(everything().interfaces.interfaces)}\n"
    f"VARIABLE_NOT_SET\n{pod().name}\n"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the distribution is built from: a build writes beside it."""
    directory = tmp_path_factory.mktemp("source")
    for name in ("agent", "client", "proto"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, directory)
    return directory


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    done = subprocess.run(
        [*command, "--outdir", str(directory), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = directory.glob("kube_netutil-*.whl")
    return found


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment.create(tmp_path_factory.mktemp("plain"))
    environment.install(*CONSTRAINTS, str(wheel))
    return environment


def calls(environment: Environment, path: Path) -> str:
    """Return the output of a program that calls with the client of the environment."""
    agent = FakeAgent(str(path / "net.sock"))
    with serving(agent):
        return environment.output("python", "-W", "error", "-c", CALLS, agent.path)


def lowest() -> list[str]:
    """The lower bounds of the plain distribution."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = parser["options"]["install_requires"].split()
    found = [re.fullmatch(r"([a-z-]+)>=([0-9.]+)(?:,<[0-9]+)?", line) for line in lines]
    return [f"{match[1]}=={match[2]}" for match in found if match is not None]


class TestPlain:
    def test_it_has_the_client_and_what_that_needs(self, plain: Environment) -> None:
        assert set(plain.distributions()) == PLAIN | {"typing_extensions"}

    def test_its_client_calls_the_agent(self, plain: Environment, tmp_path: Path) -> None:
        assert calls(plain, tmp_path) == CALLED

    def test_its_types_and_protos_are_there(self, plain: Environment) -> None:
        (packages,) = plain.directory.glob("lib/python3*/site-packages/netutil")
        for name in (
            "client",
            "v1alpha",
            "podresources/v1",
            "podsapi/v1alpha1",
            "deviceplugin/v1beta1",
            "csi/v1",
        ):
            assert (packages / name / "py.typed").is_file()
        for name in (
            "v1alpha",
            "podresources/v1",
            "podsapi/v1alpha1",
            "deviceplugin/v1beta1",
            "csi/v1",
        ):
            assert list((packages / name).glob("*.proto"))
            assert list((packages / name).glob("*_pb2.pyi"))

    @pytest.mark.parametrize(
        ("command", "extra"),
        [
            (("netutil", "--help"), "cli"),
            (("netutil-agent",), "agent"),
            (("netutil-agent", "--check"), "agent"),
            (("netutil-agent", "--version"), "agent"),
        ],
        ids=["netutil", "agent", "check", "version"],
    )
    def test_a_command_names_its_missing_extra(
        self, plain: Environment, command: tuple[str, ...], extra: str
    ) -> None:
        done = plain.run(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(
            rf"{command[0]}: the Python package \w+ is missing: install kube-netutil\[{extra}\]\n",
            done.stderr,
        )

    def test_its_kubectl_plugin_needs_no_extra(self, plain: Environment) -> None:
        version = plain.distributions()["kube-netutil"]
        assert plain.output("kubectl-netutil", "--version").startswith(
            f"kubectl-netutil {version} ("
        )


def test_the_lowest_versions_call_the_agent(wheel: Path, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "lowest")
    bounds = lowest()
    assert {one.partition("==")[0] for one in bounds} == PLAIN - {"kube-netutil"}
    environment.install("--only-binary", ":all:", *bounds, str(wheel))
    installed = environment.distributions()
    assert set(bounds) <= {f"{name}=={pin}" for name, pin in installed.items()}
    assert calls(environment, tmp_path) == CALLED


def test_the_extra_cli_has_the_command(plain: Environment, wheel: Path, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "cli")
    environment.install(*CONSTRAINTS, f"{wheel}[cli]")
    added = set(environment.distributions()) - set(plain.distributions())
    assert added == {"argcomplete", "PyYAML"}
    version = environment.distributions()["kube-netutil"]
    text = environment.output("netutil", "--version")
    assert re.fullmatch(rf"netutil {version} \(Python 3\.[0-9.]+, grpcio [0-9.]+\)\n", text)
    assert "netutil" in environment.output("netutil", "completion", "bash")
    agent = FakeAgent(str(tmp_path / "net.sock"))
    with serving(agent):
        text = environment.output("netutil", "--socket", agent.path, "whoami", "-o", "yaml")
    assert f"name: {pod().name}\n" in text


def test_the_source_tree_installs_with_the_agent(source: Path, tmp_path: Path) -> None:
    environment = Environment.create(tmp_path / "agent")
    environment.install(*CONSTRAINTS, f"{source}[agent]")
    environment.output("python", "-W", "error", "-c", "import netutil.agent.lifecycle")
    version = environment.distributions()["kube-netutil"]
    assert environment.output("netutil-agent", "--version").startswith(f"netutil-agent {version} (")
    assert "--pod-source" in environment.output("netutil-agent", "--help")
    assert "--kubelet-root" in environment.output("netutil-csi", "--help")
