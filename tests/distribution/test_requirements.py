"""The requirements of the image: scripts/requirements.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import requirements, sbom
from scripts.dependencies import PLAIN, declarations, normal
from tests.support.repository import ROOT

WRITES_THE_PLATFORM = """#!{python} -IS
import sys
print(sys.argv[sys.argv.index("--python-platform") + 1])
"""
FAILS = """#!/bin/sh
echo no such package >&2
exit 1
"""


def pins(name: str) -> dict[str, str]:
    text = (ROOT / name).read_text(encoding="ascii")
    return {normal(found): pin for found, pin in re.findall(r"^(\S+)==(\S+)", text, re.MULTILINE)}


def script(path: Path, text: str) -> str:
    path.write_text(text.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def test_the_image_has_the_tested_versions() -> None:
    tested = pins("constraints.txt")
    assert pins("requirements.txt").items() <= tested.items(), "run make requirements"


def test_the_image_has_all_that_its_extras_declare() -> None:
    declared = declarations((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    needed = declared[PLAIN] | declared["agent"] | declared["cli"]
    assert needed <= pins("requirements.txt").keys(), "run make requirements"


def test_the_tools_that_build_the_image_are_removed() -> None:
    built = pins("requirements-build.txt")
    assert {"setuptools", "mypy", "types-grpcio"} <= built.keys()
    tested = pins("constraints.txt") | {"setuptools": built["setuptools"]}  # pip's, not pinned
    assert built.items() <= tested.items(), "run make requirements"
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    hashes = " \\\n    --hash=sha256:0\n"
    text = "# Head.\n" + "".join(f"{name}=={pin}{hashes}" for name, pin in built.items())
    left = re.findall(r"^(\S+)==", sbom.kept(text, dockerfile), re.MULTILINE)
    assert set(left) <= pins("requirements.txt").keys()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_each_package_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="ascii")
    for entry in re.split(r"^(?=[a-z])", text.partition("\n")[2], flags=re.MULTILINE)[1:]:
        assert re.fullmatch(r"\S+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", entry), entry


def test_platforms_that_differ_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = script(tmp_path / "uv", WRITES_THE_PLATFORM)
    with pytest.raises(requirements.PlatformsDifferError, match="aarch64"):
        requirements.requirements(uv, ["setup.cfg"])
    assert requirements.main([uv]) == 1
    assert "aarch64" in capsys.readouterr().err


def test_an_unresolvable_requirement_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uv = script(tmp_path / "uv", FAILS)
    before = (ROOT / "requirements.txt").read_bytes()
    assert requirements.main([uv]) == 1
    assert "no such package" in capsys.readouterr().err
    assert (ROOT / "requirements.txt").read_bytes() == before


def test_the_sbom_leaves_out_what_the_image_removes() -> None:
    hashes = " \\\n    --hash=sha256:0\n"
    text = f"# Head.\naiohttp==1{hashes}grpcio==2{hashes}"
    dockerfile = 'RUN "$VENV/bin/pip" uninstall --quiet --yes attrs \\\n    aiohttp \\\n && rm x\n'
    assert sbom.kept(text, dockerfile) == f"# Head.\ngrpcio==2{hashes}"


@pytest.mark.packages
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_architecture_has_wheels_with_these_hashes(machine: str, tmp_path: Path) -> None:
    tags = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"),
            *("--only-binary", ":all:", "--python-version", requirements.PYTHON),
            *(f"--platform={tag}_{machine}" for tag in tags),
            *("--dest", str(tmp_path), "--requirement", str(ROOT / "requirements.txt")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.whl"))) == len(pins("requirements.txt"))
