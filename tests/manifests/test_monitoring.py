"""Alerts and dashboard: of metrics that exist, and alerts that fire when they should."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.documentation import rows, text_of
from tests.support.manifests.documents import MANIFESTS, agent_of, one, read
from tests.support.manifests.overlays import BASES, with_component
from tests.support.metric_names import scraped
from tests.support.packages import unpacked

MONITORING = MANIFESTS / "monitoring"
UNIT_TESTS = Path(__file__).with_name("alerts_test.yaml")
# Not the agent's: of every Python process, and of kube-state-metrics.
OTHERS = {
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_threads",
    "kube_daemonset_status_number_unavailable",
}
_METRIC = re.compile(r"\b(?:netutil|process|kube)_[a-z_]+")
_HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")


def groups() -> dict[str, Any]:
    """The part that is Prometheus's own rule file."""
    spec: dict[str, Any] = one(read(MONITORING / "alerts.yaml"), "PrometheusRule")["spec"]
    return spec


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    return loaded


def expressions() -> Iterator[str]:
    for group in groups()["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def families() -> set[str]:
    return {_HISTOGRAM.sub("", name) for text in expressions() for name in _METRIC.findall(text)}


def test_every_metric_exists() -> None:
    assert families() <= set(scraped()) | OTHERS


def test_every_metric_is_on_the_dashboard_or_in_an_alert() -> None:
    assert set(scraped()) <= families()


@pytest.fixture(scope="module")
def promtool() -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root: apt-get download of Debian's prometheus, for its promtool")
    return str(unpacked("prometheus") / "usr/bin/promtool")


def run(promtool: str, *arguments: str, directory: Path) -> None:
    done = subprocess.run(
        [promtool, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.root
def test_the_alerts_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups()), encoding="utf-8")
    (tmp_path / "test.yaml").write_text(UNIT_TESTS.read_text("utf-8"), encoding="utf-8")
    run(promtool, "check", "rules", "rules.yaml", directory=tmp_path)
    run(promtool, "test", "rules", "test.yaml", directory=tmp_path)


def test_every_alert_is_tried() -> None:
    tried = {
        case["alertname"]
        for test in yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert tried == {rule["alert"] for group in groups()["groups"] for rule in group["rules"]}


@pytest.mark.root
def test_prometheus_can_read_every_expression_of_the_dashboard(
    promtool: str, tmp_path: Path
) -> None:
    rules = [
        {"record": f"panel_{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    whole = {"groups": [{"name": "dashboard", "rules": rules}]}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    run(promtool, "check", "rules", "rules.yaml", directory=tmp_path)


def test_panels_do_not_overlap_and_have_titles_of_their_own() -> None:
    panels = dashboard()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for position in [panel["gridPos"]]
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24  # Grafana's grid
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("base", BASES)
def test_the_component_scrapes_the_agents_port(base: str) -> None:
    objects = with_component(base, "monitoring")
    spec = one(objects, "PodMonitor")["spec"]
    labels = one(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for port in agent_of(objects)["ports"]}
    assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= ports
    (board,) = one(objects, "ConfigMap")["data"].values()
    assert json.loads(board) == dashboard()
    assert one(objects, "ConfigMap")["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_the_documented_alerts_are_those_of_the_rules() -> None:
    section = text_of("docs/operate.md").partition("### Monitoring")[2].partition("\n## ")[0]
    documented = {row[0] for row in rows(section) if row[0].startswith("Netutil")}
    assert documented == {rule["alert"] for group in groups()["groups"] for rule in group["rules"]}
