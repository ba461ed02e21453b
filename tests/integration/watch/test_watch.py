"""Each change in a pod reaches its watchers, and nothing else does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import ask, links_are_refused
from tests.support.nodes.json_calls import SCRIPT
from tests.support.nodes.watching import (
    Watcher,
    addresses,
    annotate,
    ip,
    link,
    set_cpus,
    watching,
)

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("watch")]


@dataclass
class Watched:
    lab: Lab
    pod: LabPod
    app: LabContainer


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Lab() as lab:
        pod = lab.pod("web", labels={"tier": "front"})
        app = pod.container("app", env={"WHO": "web", "PATH": os.environ["PATH"]}, cpus="0-1")
        lab.agent("--pod-refresh=0.2", "--pod-resources=/nonexistent/kubelet.sock")
        yield Watched(lab, pod, app)


@pytest.fixture
def watcher(watched: Watched) -> Iterator[Watcher]:
    """A watcher that has had its first snapshot."""
    with watching(watched.app) as watcher:
        assert watcher.next()["version"] == "1"
        yield watcher


def without_times(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "observed_at"}


def test_the_first_snapshot_is_whole_and_says_what_get_all_says(watched: Watched) -> None:
    with watching(watched.app) as watcher:
        first = watcher.next()
    assert first["version"] == "1"
    assert "changed" not in first
    assert first["observed_at"]
    everything = ask(watched.app, "-c", SCRIPT, "GetAll", "AllRequest", "{}")
    for part in ("pod", "cpu", "environment", "network_status"):
        assert without_times(first["snapshot"][part]) == without_times(everything[part])
    assert [one["part"] for one in first["snapshot"]["errors"]] == ["resources"]


def test_an_address_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    if links_are_refused(watched.app):
        return
    ip(watched.app, "address add 192.0.2.9/24 dev eth0")
    news = watcher.until(lambda one: "192.0.2.9/24" in addresses(one))
    assert news["changed"] == ["interfaces"]
    ip(watched.app, "address del 192.0.2.9/24 dev eth0")
    watcher.until(lambda one: "192.0.2.9/24" not in addresses(one))


def test_a_link_that_goes_down_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    if links_are_refused(watched.app):
        return
    ip(watched.app, "link set eth0 down")
    news = watcher.until(lambda one: not link(one).get("up"))
    assert news["changed"] == ["interfaces"]
    ip(watched.app, "link set eth0 up")
    watcher.until(lambda one: bool(link(one).get("up")))


def test_a_default_route_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    if links_are_refused(watched.app):
        return
    ip(watched.app, "route add default dev eth0 metric 7")
    news = watcher.until(lambda one: "default_routes" in link(one))
    assert link(news)["default_routes"][0]["metric"] == 7
    ip(watched.app, "route del default dev eth0 metric 7")
    watcher.until(lambda one: "default_routes" not in link(one))


def test_a_new_link_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    if links_are_refused(watched.app):
        return
    ip(watched.app, "link add br7 type bridge")
    watcher.until(lambda one: "br7" in str(one["snapshot"]["interfaces"]))
    ip(watched.app, "link del br7")
    watcher.until(lambda one: "br7" not in str(one["snapshot"]["interfaces"]))


def test_a_cpu_set_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    set_cpus(watched.app, "0")
    news = watcher.until(lambda one: one["snapshot"]["cpu"]["cpuset"] == "0")
    assert news["changed"] == ["cpu"]
    assert news["snapshot"]["cpu"]["effective_cpus"] == "0"
    set_cpus(watched.app, "0-1")
    watcher.until(lambda one: one["snapshot"]["cpu"]["cpuset"] == "0-1")


def test_a_cpu_quota_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    (file,) = [
        file
        for directory in watched.app.cgroups
        for name in ("cpu.cfs_quota_us", "cpu.max")
        if (file := directory / name).exists()
    ]
    file.write_text("50000")
    news = watcher.until(lambda one: "cpu" in one["changed"])
    assert news["snapshot"]["cpu"]["quota_cores"] == 0.5
    file.write_text("-1" if file.name == "cpu.cfs_quota_us" else "max")
    watcher.until(lambda one: "quota_cores" not in one["snapshot"]["cpu"])


def test_a_cpu_quota_of_the_pod_s_cgroup_reaches_a_watcher(
    watched: Watched, watcher: Watcher
) -> None:
    watched.pod.limit(0.5)
    news = watcher.until(lambda one: one["snapshot"]["cpu"].get("quota_cores") == 0.5)
    assert news["changed"] == ["cpu"]
    assert news["snapshot"]["cpu"]["quota_level"] == "CGROUP_LEVEL_POD"
    watched.pod.limit(None)
    watcher.until(lambda one: "quota_cores" not in one["snapshot"]["cpu"])


def test_a_cpu_quota_above_the_pods_reaches_a_watcher(watched: Watched, watcher: Watcher) -> None:
    watched.lab.limit_kubepods(1.5)
    news = watcher.until(lambda one: one["snapshot"]["cpu"].get("quota_cores") == 1.5)
    assert news["snapshot"]["cpu"]["quota_level"] == "CGROUP_LEVEL_KUBEPODS"
    watched.lab.limit_kubepods(None)
    watcher.until(lambda one: "quota_cores" not in one["snapshot"]["cpu"])


def test_an_annotation_and_a_label_reach_a_watcher(watched: Watched, watcher: Watcher) -> None:
    watched.pod.labels["tier"] = "back"
    annotate(watched.lab, watched.pod, "example.com/colour", "blue")
    news = watcher.until(lambda one: "pod" in one["changed"])
    assert news["snapshot"]["pod"]["annotations"]["example.com/colour"] == "blue"
    assert news["snapshot"]["pod"]["labels"]["tier"] == "back"


def test_versions_count_and_the_environment_comes_once(watched: Watched, watcher: Watcher) -> None:
    for version in ("2", "3"):
        annotate(watched.lab, watched.pod, "example.com/version", version)
        news = watcher.next()
        assert news["version"] == version
        assert "environment" not in news["snapshot"]
        assert "environment" not in news["changed"]


def test_the_environment_comes_each_time_if_it_is_asked_for(watched: Watched) -> None:
    with watching(watched.app, environment=True) as watcher:
        watcher.next()
        annotate(watched.lab, watched.pod, "example.com/environment", "asked")
        news = watcher.next()
    assert news["snapshot"]["environment"]["envs"]["WHO"] == "web"
    assert news["changed"] == ["pod"]


def test_counters_are_no_change(watched: Watched, watcher: Watcher) -> None:
    if links_are_refused(watched.app):
        return
    sending = "import socket; s=socket.socket(2,2)\nfor _ in range(50): s.sendto(b'x',('%s',9))"
    neighbour = "neighbour replace 10.244.0.99 lladdr 02:00:00:00:00:99 dev eth0"
    ip(watched.app, neighbour)
    watcher.settle()
    watched.app.run(["python3", "-c", sending % "10.244.0.99"])
    assert watcher.quiet(0.5)
    annotate(watched.lab, watched.pod, "example.com/counters", "sent")
    news = watcher.next()
    assert news["changed"] == ["pod"]
    assert int(link(news)["counters"]["tx_packets"]) >= 50


def test_a_change_reversed_between_two_reads_is_no_change(
    watched: Watched, watcher: Watcher
) -> None:
    up_already = ["link set eth0 up"] * 20
    watcher.settle()
    ip(watched.app, *up_already)
    set_cpus(watched.app, "0-1")
    watched.lab.write_pod_list()
    assert watcher.quiet(0.6)


def test_changes_coalesce_to_ten_a_second_and_the_last_is_seen(
    watched: Watched, watcher: Watcher
) -> None:
    if links_are_refused(watched.app):
        return
    begun = time.monotonic()
    for number in range(100):
        ip(
            watched.app,
            f"address add 198.51.100.{number + 1}/32 dev eth0",
            f"address del 198.51.100.{number}/32 dev eth0" if number else "",
        )
    came = [watcher.next()]
    while [one for one in addresses(came[-1]) if one.startswith("198.")] != ["198.51.100.100/32"]:
        came.append(watcher.next())
    seconds = float(came[-1]["at"]) - begun
    assert len(came) <= 10 * seconds + 2
    assert watcher.quiet(0.3)
    ip(watched.app, "address del 198.51.100.100/32 dev eth0")


def test_a_slow_reader_gets_the_newest_not_a_backlog(watched: Watched) -> None:
    # Each snapshot is larger than what HTTP/2 lets a server send ahead of its reader.
    with watching(watched.app, slow=True) as slow, watching(watched.app) as fast:
        assert fast.next()["version"] == "1"
        size = 200 * 1024
        for number in range(20):
            annotate(watched.lab, watched.pod, "example.com/large", str(number) + "x" * size)
            fast.next()
        assert slow.next()["version"] == "1"
        read = [slow.next()]
        while not read[-1]["snapshot"]["pod"]["annotations"]["example.com/large"].startswith("19"):
            read.append(slow.next())
        assert len(read) <= 4
    annotate(watched.lab, watched.pod, "example.com/large", "")
