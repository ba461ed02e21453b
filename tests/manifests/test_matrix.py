"""The matrix of the README: what it says was validated and recorded is what the tests have."""

from __future__ import annotations

import re

import pytest

from tests.manifests.test_files import VERSIONS
from tests.support.documentation import text_of
from tests.support.repository import ROOT


@pytest.fixture(scope="module")
def section() -> str:
    return text_of("README.md").partition("## Tested on\n")[2].partition("\n## ")[0]


def test_the_validated_versions_are_those_of_the_tests(section: str) -> None:
    (sentence,) = re.findall(r"API of Kubernetes ([^:]*?)\. The", section)
    # The hardened variant is validated from 1.31 on, admission policies from 1.30 and 1.36 on.
    validated = {version for versions in VERSIONS.values() for version in versions}
    assert set(re.findall(r"1\.\d+", sentence)) == validated


def test_every_recording_is_named(section: str) -> None:
    recorded = {f"tests/recorded/{path.name}" for path in (ROOT / "tests/recorded").iterdir()}
    assert set(re.findall(r"tests/recorded/[\w.-]+", section)) == recorded


def test_the_lowest_version_is_that_of_the_chart(section: str) -> None:
    (lowest,) = re.findall(r"The agent is for Kubernetes ([\d.]+) or later", section)
    assert f'kubeVersion: ">= {lowest}.0-0"' in text_of("manifests/helm/netutil/Chart.yaml")
    assert f"| Kubernetes | {lowest} or later" in text_of("docs/compatibility.md")
