"""The instructions of the Dockerfile."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml
from netutil.agent.config import parse

from tests.support.dockerfile import instructions, stage, stages, version
from tests.support.repository import ROOT

BASE_IMAGE = re.compile(
    r"docker\.io/library/python:(3\.11\.\d+)(-slim)?-bookworm(@sha256:[0-9a-f]{64})?"
)


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


def test_both_stages_have_one_python_pinned_by_exact_tag() -> None:
    assert [each.base for each in stages()] == ["${PYTHON_BUILD_IMAGE}", "${PYTHON_IMAGE}"]
    images = dict(rest.split("=", 1) for name, rest in instructions()[:2] if name == "ARG")
    build, shipped = (
        BASE_IMAGE.fullmatch(images[name]) for name in ("PYTHON_BUILD_IMAGE", "PYTHON_IMAGE")
    )
    assert build and shipped and build[1] == shipped[1]
    assert shipped[2] == "-slim"


def test_nothing_is_fetched_but_packages() -> None:
    assert not [rest for name, rest in instructions() if name == "ADD"]
    runs = [rest for each in stages() for rest in each.every("RUN")]
    assert not [rest for rest in runs if re.search(r"curl|wget|https?://|apt", rest)]


def test_copied_files_are_in_git_and_not_ignored() -> None:
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


def test_it_runs_the_agent_as_root_and_checks_its_health() -> None:
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
        if "templates" not in path.parts:  # Helm's, which are YAML once they are rendered
            assert list(yaml.safe_load_all(text))
