"""The Dockerfile: read, and the commands of its build stage run. No engine is needed."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from netutil.agent.settings import parse

ROOT = Path(__file__).parent.parent
BASE_IMAGE = re.compile(
    r"docker\.io/library/python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?"
)


@dataclass
class Stage:
    """One FROM and what follows it, as (instruction, rest of its line)."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def every(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.instructions if name == instruction]

    def last(self, instruction: str) -> str:
        return self.every(instruction)[-1]

    def variables(self, instruction: str) -> dict[str, str]:
        """What ENV, ARG or LABEL set."""
        pairs = [pair for rest in self.every(instruction) for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    def copies(self) -> list[tuple[list[str], str]]:
        """Sources and destination of each COPY out of the build context."""
        words = [shlex.split(rest) for rest in self.every("COPY")]
        return [(line[:-1], line[-1]) for line in words if not line[0].startswith("--from=")]


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in joined.split("\n")
        if line.strip()
    ]


def stages() -> list[Stage]:
    found: list[Stage] = []
    for instruction, rest in instructions():
        if instruction == "FROM":
            base, name = re.split(r" AS ", rest)
            found.append(Stage(base, name))
        elif found:
            found[-1].instructions.append((instruction, rest))
    return found


def stage(name: str) -> Stage:
    (found,) = (each for each in stages() if each.name == name)
    return found


def version() -> str:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser["metadata"]["version"]


def tracked() -> set[str]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split("\0"))


def test_a_stage_builds_and_another_is_shipped() -> None:
    assert [each.name for each in stages()] == ["build", "agent"]


def test_both_stages_stand_on_one_base_pinned_by_exact_tag() -> None:
    assert {each.base for each in stages()} == {"${PYTHON_IMAGE}"}
    first, rest = instructions()[0]
    name, _, image = rest.partition("=")
    assert (first, name) == ("ARG", "PYTHON_IMAGE")
    assert BASE_IMAGE.fullmatch(image)


def test_nothing_is_fetched_but_packages() -> None:
    assert not [rest for name, rest in instructions() if name == "ADD"]
    runs = [rest for each in stages() for rest in each.every("RUN")]
    assert not [rest for rest in runs if re.search(r"curl|wget|https?://|apt", rest)]


def test_what_is_copied_is_in_git_and_not_ignored() -> None:
    names = tracked()
    sources = {source for copied, _ in stage("build").copies() for source in copied}
    for source in sources:
        assert source in names or any(name.startswith(f"{source}/") for name in names), source
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert {pattern[1:] for pattern in patterns if pattern.startswith("!")} == sources


def test_only_the_virtual_environment_is_shipped() -> None:
    shipped = stage("agent")
    venv = stage("build").variables("ENV")["VENV"]
    assert shipped.every("COPY") == [f"--from=build {venv} {venv}"]
    assert shipped.variables("ENV")["PATH"].startswith(f"{venv}/bin:")


def test_the_base_images_own_pip_is_removed() -> None:
    (run,) = stage("agent").every("RUN")
    assert "pip uninstall" in run
    assert {"pip", "setuptools", "wheel"} <= set(run.split("&&")[0].split())


def test_it_runs_the_agent_as_root_and_asks_it_whether_it_is_well() -> None:
    shipped = stage("agent")
    assert json.loads(shipped.last("ENTRYPOINT")) == ["netutil-agent"]
    assert shipped.last("USER") == "0:0"
    command = json.loads(shipped.last("HEALTHCHECK").partition("CMD ")[2])
    assert command[0] == "netutil-agent"
    assert parse(command[1:], {}).check


def test_one_version_everywhere() -> None:
    assert stage("agent").variables("LABEL")["org.opencontainers.image.version"] == version()
    for path in (ROOT / "manifests").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        tags = re.findall(r"image: \S+/netutil:(\S+)", text) + re.findall(r"newTag: (\S+)", text)
        assert set(tags) <= {version()}, path
        assert list(yaml.safe_load_all(text))


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
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_")) or name.lower().endswith("_proxy")
    }
    environment = {
        **inherited,
        "HOME": os.environ.get("HOME", "/"),
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        **build.variables("ARG"),
        **build.variables("ENV"),
        "VENV": str(made),
    }
    for command in build.every("RUN"):
        done = subprocess.run(
            ["/bin/sh", "-ec", command],
            cwd=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return made


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


@pytest.mark.xdist_group("image")
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

    def test_the_api_and_the_types_are_in_it(self, venv: Path) -> None:
        (packages,) = venv.glob("lib/python3*/site-packages/netutil")
        generated = packages / "v1alpha"
        sources = {path.name for path in (ROOT / "proto/netutil/v1alpha").iterdir()}
        assert {path.name for path in generated.iterdir()} == sources - {"__pycache__"}
        assert list(generated.glob("*.proto")) and list(generated.glob("*.pyi"))
        for package in ("agent", "client", "v1alpha"):
            assert (packages / package / "py.typed").is_file()

    def test_its_packages_are_the_tested_ones_and_nothing_else(self, venv: Path) -> None:
        code = (
            "from importlib.metadata import distributions\n"
            "for each in distributions(): print(each.name, each.version)"
        )
        installed = dict(line.split() for line in run(venv, "python", "-c", code).splitlines())
        assert installed.pop("netutil") == version()
        text = (ROOT / "constraints.txt").read_text(encoding="ascii")
        pinned = {
            normal(name): pin for name, pin in (line.split("==") for line in text.splitlines())
        }
        assert {normal(name): pin for name, pin in installed.items()}.items() <= pinned.items()
        assert "grpcio" in installed
        assert not {"pip", "setuptools", "pytest", "kubernetes"} & set(installed)

    def test_it_is_small_and_has_nothing_to_spare(self, venv: Path) -> None:
        files = [path for path in venv.rglob("*") if path.is_file() and not path.is_symlink()]
        assert sum(path.stat().st_size for path in files) < 40 * 1024 * 1024
        assert not [path for path in files if path.suffix in (".pyc", ".c", ".pyx")]
        assert not [path for path in venv.rglob("tests") if path.is_dir()]
        assert {path.name for path in (venv / "bin").iterdir()} <= {
            "netutil",
            "netutil-agent",
            "python",
            "python3",
            "python3.11",
        }


def normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
