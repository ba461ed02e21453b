"""The commands of the Dockerfile, run in a temporary tree; and what they made, run too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts import compiled
from tests.support.dockerfile import Stage, stage, version
from tests.support.repository import ROOT

# The first test makes the environment: a busy machine takes minutes for that.
pytestmark = [pytest.mark.xdist_group("image"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the build stage makes, by its own COPY and RUN lines."""
    scratch = tmp_path_factory.mktemp("image")
    source = scratch / "src"
    source.mkdir()
    build = stage("build")
    for names, destination in build.copies():
        for name in names:
            target = source / destination
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, target, ignore=ignored)
            else:
                shutil.copy(ROOT / name, target)
    made = scratch / "venv"
    for command in build.every("RUN"):
        execute(command, build, source, {"VENV": str(made)})
    return made


def execute(command: str, of: Stage, directory: Path, changed: Mapping[str, str]) -> None:
    """Execute a RUN with the variables of its stage, but for those that name other places here."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")
    }
    environment = {
        **inherited,
        "HOME": os.environ.get("HOME", "/"),
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        **of.variables("ARG"),
        **{name: value for name, value in of.variables("ENV").items() if name != "PATH"},
        **changed,
    }
    done = subprocess.run(
        ["/bin/sh", "-ec", command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def run(venv: Path, *argv: str) -> str:
    done = subprocess.run(
        [str(venv / "bin" / argv[0]), *argv[1:]],
        cwd="/",
        env={"PATH": os.defpath, **stage("agent").variables("ENV")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestBuildStage:
    def test_both_commands_run(self, venv: Path) -> None:
        assert "--pod-source" in run(venv, "netutil-agent", "--help")
        assert "netutil" in run(venv, "netutil", "--help")

    def test_all_of_the_agent_and_the_client_can_be_imported(self, venv: Path) -> None:
        code = (
            "import importlib, pkgutil, netutil.agent, netutil.client\n"
            "for package in (netutil.agent, netutil.client):\n"
            "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
            "        if not module.name.endswith('__main__'):\n"
            "            importlib.import_module(module.name)\n"
            "print(netutil.agent.__path__[0])\n"
        )
        assert run(venv, "python", "-c", code).startswith(str(venv))

    def test_the_modules_of_setup_cfg_are_machine_code(self, venv: Path) -> None:
        modules = compiled.names()
        code = (
            "import importlib, sys\n"
            "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
        )
        files = run(venv, "python", "-c", code, *modules).splitlines()
        assert len(files) == len(modules) > 1
        assert all(file.endswith(".so") for file in files)
        assert run(venv, "netutil-agent", "--version").endswith(", compiled)\n")

    def test_the_api_and_the_types_are_in_it(self, venv: Path) -> None:
        (packages,) = venv.glob("lib/python3*/site-packages/netutil")
        generated = packages / "v1alpha"
        sources = {path.name for path in (ROOT / "proto/netutil/v1alpha").iterdir()}
        assert {path.name for path in generated.iterdir()} == sources | {"__pycache__"}
        assert list(generated.glob("*.proto")) and list(generated.glob("*.pyi"))
        for package in ("agent", "client", "v1alpha"):
            assert (packages / package / "py.typed").is_file()

    def test_a_start_compiles_nothing(self, venv: Path) -> None:
        output = subprocess.run(
            [venv / "bin" / "python", "-v", "-c", "import netutil.agent.lifecycle"],
            env=stage("agent").variables("ENV"),
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        loaded = re.findall(r"^# code object from '?(.+?)'?$", output, re.MULTILINE)
        own = [path for path in loaded if path.startswith(str(venv))]
        assert own and not [path for path in own if not path.endswith(".opt-2.pyc")]

    def test_its_packages_are_the_tested_ones_and_nothing_else(self, venv: Path) -> None:
        code = (
            "from importlib.metadata import distributions\n"
            "for each in distributions(): print(each.name, each.version)"
        )
        installed = dict(line.split() for line in run(venv, "python", "-c", code).splitlines())
        assert installed.pop("kube-netutil") == version()
        text = (ROOT / "constraints.txt").read_text(encoding="ascii")
        pinned = {
            normal(name): pin for name, pin in (line.split("==") for line in text.splitlines())
        }
        assert {normal(name): pin for name, pin in installed.items()}.items() <= pinned.items()
        assert "grpcio" in installed
        assert not {"pip", "setuptools", "pytest", "aiohttp", "mypy"} & set(installed)

    def test_its_client_of_the_api_server_can_be_imported(self, venv: Path) -> None:
        run(venv, "python", "-c", "import netutil.agent.pods.sources.apiserver")

    def test_it_is_small_and_has_nothing_to_spare(self, venv: Path) -> None:
        files = [path for path in venv.rglob("*") if path.is_file() and not path.is_symlink()]
        assert sum(path.stat().st_size for path in files) < 120 * 1024 * 1024
        assert not [path for path in files if path.suffix in (".c", ".pyx")]
        assert not [path for path in venv.rglob("tests") if path.is_dir()]
        assert {path.name for path in (venv / "bin").iterdir()} <= {
            "kubectl-netutil",
            "netutil",
            "netutil-agent",
            "netutil-csi",
            "python",
            "python3",
            "python3.11",
        }


class TestShippedStage:
    def test_its_python_can_install_nothing(self, tmp_path: Path) -> None:
        """The base image's /usr/local, played by an environment that has pip."""
        subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
        bundled = next(tmp_path.glob("lib/python3*")) / "ensurepip"
        bundled.mkdir()
        (command,) = stage("agent").every("RUN")
        command = command.replace("/usr/local/", f"{tmp_path}/")
        # Whatever else it would touch is this machine's.
        assert set(re.findall(r"(?<=\s)/\S+", command)) == {
            f"{tmp_path}/lib/python3*/ensurepip",
            f"{tmp_path}/lib/python3*",
        }
        execute(command, stage("agent"), tmp_path, {"PATH": f"{tmp_path}/bin:{os.defpath}"})
        assert not bundled.exists()
        for package in ("pip", "setuptools", "wheel"):
            assert not list(tmp_path.glob(f"lib/python3*/site-packages/{package}"))

    def test_the_engine_learns_the_health_of_the_agent(self, venv: Path) -> None:
        health = stage("agent").last("HEALTHCHECK")
        command = json.loads(health.partition("CMD ")[2])
        with running_agent(venv) as environment:
            assert ask(venv, command, environment) == 0
        assert ask(venv, command, environment) == 1


@contextmanager
def running_agent(venv: Path) -> Iterator[dict[str, str]]:
    """The ENTRYPOINT; its environment, in which the paths are those of a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="netutil-image-") as scratch:
        pods = Path(scratch, "pods.json")
        pods.write_text('{"kind": "PodList", "apiVersion": "v1", "items": []}', encoding="ascii")
        environment = {
            "PATH": os.defpath,
            "NETUTIL_SOCKET": f"{scratch}/net.sock",
            "NETUTIL_ADMIN_SOCKET": "",
            "NETUTIL_METRICS_ADDRESS": "",
            "NETUTIL_POD_SOURCE": f"file:{pods}",
        }
        entry = json.loads(stage("agent").last("ENTRYPOINT"))
        with subprocess.Popen([str(venv / "bin" / entry[0]), *entry[1:]], env=environment) as agent:
            try:
                deadline = time.monotonic() + 30
                while not Path(environment["NETUTIL_SOCKET"]).exists():
                    assert agent.poll() is None and time.monotonic() < deadline
                    time.sleep(0.02)
                yield environment
                agent.terminate()
                assert agent.wait(20) == 0
            finally:
                agent.kill()


def ask(venv: Path, command: list[str], environment: Mapping[str, str]) -> int:
    argv = [str(venv / "bin" / command[0]), *command[1:]]
    return subprocess.run(
        argv, env=environment, check=False, capture_output=True, timeout=30
    ).returncode


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
