"""`netutil node …`, run in this process against a double of the agent."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import yaml
from netutil.agent.identity.host_root import HOST_ROOT
from netutil.client.cli.exit_codes import Exit
from netutil.client.cli.render.node import ago, pods
from netutil.client.cli.render.node_text import diagnosis, explanation
from netutil.client.cli.render.tables import Style, render
from netutil.client.cli.render.top import rates, table
from netutil.client.models.core import PartError
from netutil.client.models.node import (
    Activity,
    AgentUse,
    Check,
    Diagnosis,
    Explanation,
    NodePods,
)
from netutil.client.rpc.convert import result
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.support.answers import core as answers
from tests.support.answers import devices as device_answers
from tests.support.answers import node as node_answers
from tests.support.answers.core import POD_UID
from tests.support.fakes.agent import FakeAgent, Refusal
from tests.unit.client.command import Netutil, rows_of

NOW = answers.OBSERVED_AT + timedelta(minutes=7)


def test_pods_shows_the_calls_of_each_pod(netutil: Netutil) -> None:
    title, headers, web, broken, note = rows_of(netutil("node", "pods").out)
    assert title == ["PODS"]
    assert headers == [
        *("POD", "READY", "CPUS", "CONNS", "CALLS"),
        *("REFUSED", "FAILED", "NOT FOUND", "LAST ERROR"),
    ]
    assert web[:-1] == ["default/web-0", "2/2", "0-4", "3", "42", "5", "2", "7"]
    assert web[-1].startswith("PID_OUTSIDE_POD ")
    assert broken == ["kube-system/dns", "1/1", "0-3", "0", "0", "0", "0", "0", "-"]
    assert note == [
        "(2 pods, observed at 2026-01-31T12:00:00.250000Z, networks of 1 unreadable, see -o wide)"
    ]


def test_wide_pods_show_all_that_the_list_has(netutil: Netutil) -> None:
    _, headers, web, broken, _ = rows_of(netutil("node", "pods", "-o", "wide").out)
    assert headers[:7] == ["POD", "UID", "CONTAINERS", "QOS", "PHASE", "CPUS", "NETWORKS"]
    assert web == [
        *("default/web-0", POD_UID, "app side setup(init terminated)", "Guaranteed", "Running"),
        *("app:0-3 side:4", "eth0 net1", "3", "42", "5", "2", "7"),
        "PID_OUTSIDE_POD 2026-01-31T12:00:00.250000Z",
    ]
    assert broken[6] == "unreadable: no JSON at 7"


def test_known_networks_are_shown_beside_the_others_error(
    netutil: Netutil, agent: FakeAgent
) -> None:
    agent.node_pods.pods[1].networks.append("net1")
    out = netutil("node", "pods", "-o", "wide").out
    assert "net1 perhaps more: no JSON at 7" in out
    agent.node_pods.pods[0].networks.clear()
    agent.node_pods.pods[0].networks_error = "no JSON at 9"
    out = netutil("node", "pods").out
    assert "networks of 1 unreadable, networks of 1 perhaps incomplete, see -o wide)" in out


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("name", "default/web-0"),
        ("calls", "kube-system/dns"),
        ("connections", "default/web-0"),
        ("refused", "default/web-0"),
        ("failed", "default/web-0"),
        ("not-found", "default/web-0"),
        ("last-error", "default/web-0"),
    ],
)
def test_pods_are_sorted(netutil: Netutil, agent: FakeAgent, order: str, first: str) -> None:
    agent.node_pods.pods[1].calls = 43
    assert rows_of(netutil("node", "pods", "--sort", order).out)[2][0] == first
    answer = json.loads(netutil("node", "pods", "--sort", order, "-o", "json").out)
    assert f"{answer['pods'][0]['namespace']}/{answer['pods'][0]['name']}" == first


def test_a_hundred_and_ten_pods_fit_a_terminal_of_80_columns() -> None:
    message = answers.node_pods()
    message.pods[0].name = "prometheus-node-exporter-5dd5756b68-abcde-with-a-long-name"
    message.pods[0].last_error = "TOO_MANY_CONNECTIONS_OF_POD"
    for number in range(108):
        message.pods.add().CopyFrom(message.pods[0])
        message.pods[-1].name += str(number)
    node = result(NodePods, message)
    for width in (80, 120):
        shown = render([pods(node, "name", NOW, width)], Style(width=width))
        lines = shown.splitlines()
        assert len(lines) == 110 + 3
        assert max(map(len, lines[:-1])) <= width
        assert "default/prom" in lines[2] and "..." in lines[2]
        for header in ("REFUSED", "FAILED", "NOT FOUND"):
            assert (header in lines[1]) == (width == 120)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")]
)
def test_an_age_has_one_unit(seconds: int, text: str) -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert ago(then + timedelta(seconds=seconds), then) == text
    assert ago(then - timedelta(seconds=5), then) == "0s"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["default/web-0", "kube-system/dns"]),
        (("-A",), ["default/web-0", "kube-system/dns"]),
        (("-n", "default"), ["default/web-0"]),
        (("-n", "none"), []),
        (("-l", "app=web"), ["default/web-0"]),
        (("-l", "app in (web),tier!=front"), []),
        (("-l", "!app"), ["kube-system/dns"]),
        (("--sort", "calls", "-n", "kube-system"), ["kube-system/dns"]),
    ],
)
def test_pods_are_filtered(netutil: Netutil, arguments: tuple[str, ...], names: list[str]) -> None:
    assert netutil("node", "pods", "-o", "name", *arguments).out.splitlines() == names
    rows = rows_of(netutil("node", "pods", "--no-headers", *arguments).out)
    assert [row[0] for row in rows] == names
    pods = json.loads(netutil("node", "pods", "-o", "json", *arguments).out)["pods"]
    assert [f"{pod['namespace']}/{pod['name']}" for pod in pods] == names


def test_pods_fill_a_template(netutil: Netutil) -> None:
    template = "jsonpath={range .pods[*]}{.name}={.labels.app}{'\\n'}{end}"
    assert netutil("node", "pods", "-o", template).out == "web-0=web\\ndns=\\n"
    ended = netutil("node", "pods", "-o", "jsonpath={.pods")
    assert "[TEMPLATE_MALFORMED]" in ended.err


def test_watched_pods_are_printed_when_they_change(netutil: Netutil, agent: FakeAgent) -> None:
    agent.first_node_pods = deque([answers.node_pods(), answers.node_pods()])
    agent.node_pods.pods[1].calls += 1
    arguments = ("--watch", "--interval", "10ms", "--timeout", "1s", "-o", "name")
    ended = netutil("node", "pods", *arguments)
    assert ended.code == 0
    assert ended.out.splitlines() == ["default/web-0", "kube-system/dns", "kube-system/dns"]


@pytest.mark.parametrize(
    ("arguments", "methods"),
    [
        ((), ["GetEnv", "Watch"]),
        (("--pod", "default/web-0"), ["GetEnv"]),
        (("-n", "default"), ["GetEnv"]),
        (("-n", "other"), []),
        (("--method", "Watch"), ["Watch"]),
        (("--code", "NOT_FOUND"), ["GetEnv"]),
        (("--errors",), ["GetEnv"]),
        (("--errors", "--method", "Watch"), []),
    ],
)
def test_trace_is_filtered(
    netutil: Netutil, arguments: tuple[str, ...], methods: list[str]
) -> None:
    ended = netutil("node", "trace", "--timeout", "500ms", "--no-headers", *arguments)
    lines = [line.split() for line in ended.out.splitlines() if not line.startswith("(")]
    assert [line[6] for line in lines] == methods


def test_pod_shows_everything_and_from_where(netutil: Netutil, agent: FakeAgent) -> None:
    ended = netutil("node", "pod", "default/web-0")
    rows = rows_of(ended.out)
    assert (agent.asked[0].namespace, agent.asked[0].name) == ("default", "web-0")
    for row in (
        ["pod", "default/web-0"],
        ["calls", "42"],
        ["refused", "5"],
        ["not_found", "7"],
        ["annotation", "example.com/note (value not shown)"],
        ["pod from", "https://127.0.0.1:10250/pods"],
        ["CONTAINER app"],
        ["cpu from", "/sys/fs/cgroup/cpuset/app"],
        ["effective_cpus", "0-3"],
        ["INTERFACES"],
        ["resources", "POD_RESOURCES_UNAVAILABLE", "The socket does not exist."],
    ):
        assert row in rows
    assert "115 and 4 more" in ended.out
    not_known = ended.out.partition("NOT KNOWN\n")[2]
    assert not_known.count("POD_RESOURCES_UNAVAILABLE") == 1  # of two parts that say the same


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_of_the_operators_commands(
    netutil: Netutil, output: str, load: Callable[[str], Any]
) -> None:
    pod = load(netutil("node", "pod", "default/web-0", "-o", output).out)
    assert pod["containers"][0]["pids"][0] == 100
    found = load(netutil("node", "explain", "7", "-o", output).out)
    assert found["steps"][1]["reason"] == "NOT_A_POD"
    found = load(netutil("node", "doctor", "-o", output).out)
    assert found["checks"][2]["outcome"] == "ok"


def test_top_shows_rates_between_two_readings(netutil: Netutil) -> None:
    ended = netutil("node", "top", "--once", "--interval", "10ms")
    title, headers, web, removed, note = rows_of(ended.out)
    assert title[0].startswith(
        "11.0 calls/s in 10.0 s, 1 watchers, 2 of 4096 connections, up 1m50s"
    )
    assert headers == [
        *("POD", "CONNS", "OPEN", "CALLS/S", "REFUSED/S", "FAILED/S", "NOT FOUND/S"),
        *("MEAN ms", "P99 ms", "LAST ERROR"),
    ]
    assert web == [
        *("default/web-0", "2", "1", "10.0", "0.5", "0.0", "0.5"),
        *("2.00", "5", "PID_OUTSIDE_POD"),
    ]
    assert removed[0] == "(not listed: old-uid)" and removed[-2] == ">5000"
    assert note == ["(without a connection or a call: 1)"]


def test_top_goes_on_and_sorts(netutil: Netutil, agent: FakeAgent) -> None:
    out = netutil(*("node", "top", "-o", "json", "--interval", "10ms", "--timeout", "1s")).out
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) >= 2
    assert [one["pod"] for one in lines[0]["pods"]] == [
        "default/web-0",
        "(not listed: old-uid)",
    ]
    agent.activities = node_answers.activities()
    out = netutil("node", "top", "--once", "--interval", "1ms", "--sort", "latency").out
    assert rows_of(out)[2][0] == "(not listed: old-uid)"


def test_top_shows_what_the_agent_uses() -> None:
    before, now = (result(Activity, one) for one in node_answers.activities())
    use = AgentUse(7, 40 * 2**20, 5.0, 9, 80, datetime.now(UTC))
    before = replace(before, agent=use)
    now = replace(now, agent=replace(use, cpu_seconds=5.25))
    notes = table(rates(before, now, "name"), None, None).notes
    assert notes[-1] == "agent: 40.0 MiB resident, 2.5 % of a CPU, 9 threads, 80 descriptors"
    other = rates(before, replace(now, agent=replace(use, pid=8)), "name")
    assert other.agent_cpu_percent is None  # another agent's
    error = PartError("agent", "RESOURCE_EXHAUSTED", "X", "No descriptors.", "", "")
    unknown = rates(before, replace(now, agent=None, agent_error=error), "name")
    assert table(unknown, None, None).notes[-1] == (
        "the agent's own use not known: No descriptors. [X]"
    )


def test_top_counts_from_zero_after_a_restart_of_the_agent() -> None:
    later, sooner = node_answers.activities()
    before, now = result(Activity, later), result(Activity, sooner)
    found = rates(now, before, "calls")  # the clock of the agent went back
    web = next(one for one in found.pods if one.pod == "default/web-0")
    assert web.calls_per_second == pytest.approx(1000 / 100.0)


@pytest.mark.parametrize(
    ("uid", "shown"),
    [("", "(not identified)"), (HOST_ROOT, "(root of the host)"), ("a1", "(not listed: a1)")],
)
def test_top_says_what_callers_without_a_name_are(uid: str, shown: str) -> None:
    later, sooner = (result(Activity, one) for one in node_answers.activities())
    before, now = (
        replace(one, pods=tuple(replace(pod, name="", uid=uid) for pod in one.pods[:1]))
        for one in (later, sooner)
    )
    assert [one.pod for one in rates(before, now, "name").pods] == [shown]


def test_top_fits_its_terminal() -> None:
    later, sooner = node_answers.activities()
    found = rates(result(Activity, later), result(Activity, sooner), "name")
    shown = table(found, 1, 100)
    assert len(shown.rows) == 1
    assert shown.notes == ("not shown: 1, without a connection or a call: 1",)
    assert {"OPEN", "LAST ERROR"} <= set(shown.headers)


def test_top_shows_the_names_in_a_narrow_terminal() -> None:
    later, sooner = node_answers.activities()
    found = rates(result(Activity, later), result(Activity, sooner), "name")
    named = replace(found.pods[1], pod="kube-system/kube-proxy-5dd5756b68-00005")
    narrow = table(replace(found, pods=(named,)), None, 80)
    assert narrow.headers == ("POD", "CONNS", "CALLS/S", "REFUSED/S", "MEAN ms", "P99 ms")
    lines = render([narrow], Style(width=80)).splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert lines[2].startswith("kube-system/kube-")
    assert lines[2].split()[0].endswith("-00005")


def test_wide_is_whole_in_a_narrow_terminal(
    netutil: Netutil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netutil.client.cli.node_pods.style", lambda: Style(width=60))
    web = netutil("node", "pods", "-o", "wide").out.splitlines()[2]
    assert web.endswith("PID_OUTSIDE_POD 2026-01-31T12:00:00.250000Z")


def test_trace_prints_a_line_for_each_call_and_what_it_missed(netutil: Netutil) -> None:
    ended = netutil("node", "trace", "--timeout", "1s")
    assert ended.code == 0
    assert ended.err == "netutil: tracing the calls of this node\n"
    assert ended.out.splitlines() == [
        "TIME               MS  POD                               CONTAINER         PID      UID"
        "     METHOD            STATUS",
        "12:00:00.250      1.2  default/web-0                     app               4711     1000"
        "    GetEnv            NOT_FOUND VARIABLE_NOT_SET",
        "(12 calls not shown: this reader was too slow)",
        "12:00:00.250     10.0  -                                 -                 -        -"
        "       Watch             streams",
    ]
    lines = [
        json.loads(line)
        for line in netutil("node", "trace", "-ojson", "--timeout=1s").out.splitlines()
    ]
    assert (lines[0]["pid"], lines[1], lines[2]["event"]) == (4711, {"lost": 12}, "began")


def test_explain_ends_with_1_for_a_refused_process(netutil: Netutil, agent: FakeAgent) -> None:
    ended = netutil("node", "explain", "7")
    assert ended.code == Exit.FAILED
    assert agent.asked[0].pid == "7"
    verdict, *steps = rows_of(ended.out)
    assert verdict == ['PID 7 is refused at "cgroup": PERMISSION_DENIED NOT_A_POD']
    assert steps[0] == ["ok", "pid", "it runs"]
    assert steps[1] == ["STOP", "cgroup", "line 1 (unified): /user.slice"]
    assert steps[-1] == ["", "fix: Only processes in pods are answered."]
    agent.explanation.answered = True
    assert netutil("node", "explain", "7").code == 0


def test_an_explanation_is_wrapped_beside_its_step() -> None:
    message = node_answers.explanation()
    message.steps[0].found[:] = ["/kubepods/pod" + "x" * 200, "a word " * 30]
    text = explanation(result(Explanation, message), Style(width=80))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[2].startswith(" " * 20)


@pytest.mark.parametrize(
    ("outcome", "code", "said"),
    [("warning", 0, "0 failed, 1 warning"), ("failed", 1, "1 failed, 0 warnings")],
)
def test_doctor_ends_with_1_only_if_something_failed(
    netutil: Netutil, agent: FakeAgent, outcome: str, code: int, said: str
) -> None:
    agent.diagnosis.checks[1].outcome = outcome
    ended = netutil("node", "doctor", "--socket", agent.path)
    assert ended.code == code
    assert "fix: Set it." in ended.out
    assert ended.out.splitlines()[-1] == f"4 checks: {said}"


def test_the_findings_of_doctor_are_one_column() -> None:
    names = ("hostPID", "socket directory")
    checks = tuple(Check(name, "ok", "found", "") for name in names)
    first, second, _ = diagnosis(Diagnosis(checks), Style()).splitlines()
    assert first.index("found") == second.index("found")


def test_doctor_without_an_agent_is_no_error_but_a_finding(
    netutil: Netutil, directory: str
) -> None:
    missing = f"{directory}/none.sock"
    ended = netutil(
        "node", "doctor", "--admin-socket", missing, "--socket", missing, "--timeout", "200ms"
    )
    assert (ended.code, ended.err) == (Exit.FAILED, "")
    first = rows_of(ended.out)[0]
    assert first[:2] == ["FAILED", "agent"]
    assert ["ok", "kernel"] in [row[:2] for row in rows_of(ended.out)]


@pytest.mark.parametrize(
    "arguments",
    [("pods",), ("pod", "a/b"), ("top", "--once"), ("trace",), ("explain", "7")],
)
def test_a_caller_without_root_gets_the_error(
    netutil: Netutil, agent: FakeAgent, arguments: tuple[str, ...]
) -> None:
    refusal = Refusal(grpc.StatusCode.PERMISSION_DENIED, "uid 0 only", "NOT_AN_OPERATOR")
    agent.refusals = deque([refusal])
    ended = netutil("node", *arguments)
    assert (ended.code, ended.out, ended.err) == (
        Exit.NOT_PERMITTED,
        "",
        "netutil: uid 0 only [NOT_AN_OPERATOR]\n",
    )


@pytest.mark.parametrize(
    "command", ["pods", "pod", "describe", "top", "trace", "explain", "doctor"]
)
def test_each_command_explains_itself(netutil: Netutil, command: str) -> None:
    ended = netutil("node", command, "--help")
    assert ended.code == 0
    assert f"usage: netutil node {command}" in ended.out
    assert command in netutil("node", "--help").out


def test_pod_lists_why_its_requests_are_not_known(netutil: Netutil, agent: FakeAgent) -> None:
    described = agent.described_pod
    error = netutil_pb2.PartError(
        part="amounts", reason="QUANTITY_MALFORMED", message="'many' is no amount of CPUs."
    )
    described.containers[0].cpu.spec_error.CopyFrom(error)
    error.part, error.message = "containers", "'lots' is no amount of bytes."
    described.containers[0].hugepages.spec_error.CopyFrom(error)
    described.containers[1].container.name = ""
    out = netutil("node", "pod", "default/web-0").out
    not_known = rows_of(out.partition("NOT KNOWN\n")[2])
    assert ["amounts", "QUANTITY_MALFORMED", "'many' is no amount of CPUs."] in not_known
    assert ["containers", "QUANTITY_MALFORMED", "'lots' is no amount of bytes."] in not_known
    assert "CONTAINER (name not known)" in out


@pytest.mark.parametrize(
    ("containers", "ready"),
    [
        ([], "?"),
        ([node_pb2.NodeContainer(name="", kind="container", state="waiting")], "?"),
        ([node_pb2.NodeContainer(name="app", kind="container", state="unknown")], "?"),
        ([node_pb2.NodeContainer(name="app", kind="container", state="waiting")], "0/1"),
    ],
    ids=["none", "nameless", "unknown", "waiting"],
)
def test_containers_that_are_not_known_are_not_counted(
    netutil: Netutil, agent: FakeAgent, containers: list[node_pb2.NodeContainer], ready: str
) -> None:
    pod = node_pb2.NodePod(namespace="shop", name="odd", containers=containers)
    agent.node_pods = node_pb2.ListPodsResponse(pods=[pod])
    (row,) = (one for one in rows_of(netutil("node", "pods").out) if one[0] == "shop/odd")
    assert row[1] == ready


def test_pod_shows_claims_of_its_containers(netutil: Netutil, agent: FakeAgent) -> None:
    (app, *_) = agent.described_pod.containers
    del app.resources.devices[:], app.resources.memory[:]
    error = device_answers.part_error("claims")
    app.resources.claims.append(device_answers.claim_request(request="b", error=error))
    claim = device_answers.interface_claim(device_answers.claim_device())
    agent.described_pod.interfaces.interfaces.add(name="net5", claim=claim)
    out = netutil("node", "pod", "default/web-0").out
    assert "nic (default/web-0-nic-x7k2p)" in out and "resource.kubernetes.io/pciBusID" in out
    assert ["claims", error.reason, error.message] in rows_of(out.partition("NOT KNOWN\n")[2])
    assert "(net5: device vf-5 of request vf of claim nic, driver" in out
    (net5,) = (row for row in rows_of(out) if row[0] == "net5")
    assert net5[6] == "0000:3b:02.5"


def test_pod_says_which_claims_are_not_known(netutil: Netutil, agent: FakeAgent) -> None:
    (app, *_) = agent.described_pod.containers
    app.resources.Clear()
    assert "CLAIMS" not in netutil("node", "pod", "default/web-0").out
    app.resources.claims_error.CopyFrom(device_answers.part_error("claims"))
    out = netutil("node", "pod", "default/web-0").out
    assert "(claims of the container not known: The kubelet's" in out
    assert "claims" in [row[0] for row in rows_of(out.partition("NOT KNOWN\n")[2])]
