"""The command `netutil`, run in this process: what it prints and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import pytest
import yaml
from netutil.client.cli.exit_codes import Exit

from tests.support.answers.core import HOSTILE, POD_UID
from tests.support.fakes.agent import FakeAgent, Refusal
from tests.unit.client.command import Netutil, rows_of


def titles_of(out: str) -> list[str]:
    return [section.splitlines()[0] for section in out.split("\n\n")]


def test_the_bare_command_prints_cpus_and_networks(netutil: Netutil, agent: FakeAgent) -> None:
    ended = netutil()
    assert (ended.code, ended.err) == (0, "")
    assert titles_of(ended.out) == ["CPU", "NETWORK STATUS"]
    assert "EnvRequest" not in {type(one).__name__ for one in agent.asked}


def test_env_option_prints_the_environment_too(netutil: Netutil) -> None:
    ended = netutil("--env")
    assert titles_of(ended.out) == ["CPU", "ENVIRONMENT", "NETWORK STATUS"]
    rows = rows_of(ended.out)
    assert ["cpuset", "0-3,8"] in rows
    assert ["quota", "1.5 CPUs (150000 us in 100000 us), limit of the pod cgroup"] in rows
    assert ["container_quota", "2 CPUs (200000 us in 100000 us)"] in rows
    assert ["PATH", "/usr/bin:/bin"] in rows
    assert "default/sriov" in ended.out


def test_networks_are_a_table(netutil: Netutil) -> None:
    title, headers, first, second, note = rows_of(netutil("network").out)
    assert title == ["NETWORK STATUS"]
    assert headers[:4] == ["NAME", "INTERFACE", "MAC", "IPS"]
    assert first == [
        *("cbr0", "eth0", "0a:58:0a:f4:00:05", "10.244.0.5", "yes", "-", "-", "-", "-"),
    ]
    assert second == [
        *("default/sriov", "net1", "c2:11:22:33:44:66", "192.0.2.10/24 2001:db8::10", "no"),
        *("9000", "192.0.2.1", "192.0.2.53 a.example example", "pci 0000:03:02.3"),
    ]
    assert note == ["(source: network-status, observed at 2026-01-31T12:00:00.250000Z)"]


def test_the_environment_says_what_is_not_exact(netutil: Netutil) -> None:
    out = netutil("env").out
    assert "(entries with bytes that are not UTF-8: 1)" in out
    assert '(entries without "=" left out: 2)' in out


def test_whoami_names_pod_container_and_labels(netutil: Netutil) -> None:
    rows = rows_of(netutil("whoami").out)
    assert ["uid", POD_UID] in rows
    assert ["container_name", "app"] in rows
    assert ["label", "tier=front"] in rows
    assert ["annotation", r"note=two\nlines"] in rows


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("env",), ("whoami",), ("network",), ("node", "pods")),
        *(("node", "pod", "default/web-0"), ("node", "explain", "7"), ("node", "doctor")),
    ],
)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_no_control_character_of_an_answer_is_printed(
    netutil: Netutil, agent: FakeAgent, arguments: tuple[str, ...], output: str
) -> None:
    agent.pod.annotations["hostile"] = agent.pod.name = HOSTILE
    agent.network_status.status[0].name = HOSTILE
    agent.node_pods.pods[0].networks_error = HOSTILE
    for text in (agent.described_pod.pod, agent.described_pod.containers[0].container):
        text.name = HOSTILE
    agent.explanation.steps[0].found[:] = [HOSTILE]
    agent.diagnosis.checks[0].found = agent.diagnosis.checks[0].remedy = HOSTILE
    if output == "table" and arguments[1:2] in (("explain",), ("doctor",)):
        output = "text"
    ended = netutil(*arguments, "-o", output)
    assert ended.code in (0, 1)
    assert ended.out.replace("\n", "").isprintable()


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_documents_are_exact(netutil: Netutil, output: str, load: Callable[[str], Any]) -> None:
    whole = load(netutil("-o", output).out)
    assert list(whole) == ["cpu", "environment", "network_status"]
    assert whole["cpu"]["shares"] is None
    assert whole["environment"]["envs"]["HOSTILE"] == HOSTILE
    assert whole["network_status"]["status"][1]["device_info"]["pci"]["pci_address"] == (
        "0000:03:02.3"
    )
    assert load(netutil("cpu", "-o", output).out) == whole["cpu"]
    assert load(netutil("env", "PATH", "-o", output).out)["envs"] == {"PATH": "/usr/bin:/bin"}
    assert load(netutil("whoami", "-o", output).out)["observed_at"] == "2026-01-31T12:00:00.250000Z"
    assert load(netutil("node", "pods", "-o", output).out)["pods"][0]["calls"] == 42


def test_a_key_prints_its_value_alone_and_exactly(netutil: Netutil) -> None:
    assert netutil("env", "PATH").out == "/usr/bin:/bin\n"
    assert netutil("env", "EMPTY").out == "\n"
    assert netutil("env", "HOSTILE").out == HOSTILE + "\n"


@pytest.mark.parametrize("command", ["network", "interfaces"])
def test_an_empty_interface_name_asks_for_all(netutil: Netutil, command: str) -> None:
    ended = netutil(command, "")
    assert (ended.code, ended.out) == (0, netutil(command).out)


def test_export_prints_commands_for_eval(netutil: Netutil, agent: FakeAgent) -> None:
    agent.environment.envs.clear()
    agent.environment.envs.update({"A": "it's $HOME\n", "B": "", "not-a-name": "x"})
    ended = netutil("env", "-o", "export")
    assert ended.err == "netutil: warning: variables with names that a shell does not take: 1\n"
    script = f'unset A B; {ended.out}printf \'%s|\' "$A" "$B"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "it's $HOME\n||"
    assert netutil("env", "B", "-o", "export").out == "export B=''\n"


def test_all_prints_the_environment_with_env_only(netutil: Netutil) -> None:
    out = netutil("all").out
    assert "PATH" not in out and "shown with --env" in out
    assert ["PATH", "/usr/bin:/bin"] in rows_of(netutil("all", "--env").out)


def test_a_variable_that_is_not_set_ends_as_not_found(netutil: Netutil) -> None:
    ended = netutil("env", "NOTHING")
    assert (ended.code, ended.out) == (Exit.NOT_FOUND, "")
    assert ended.err == "netutil: variable NOTHING is not set [VARIABLE_NOT_SET]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("cpu", "--pid", "7", "-o", "json", "--timeout", "3"),
        ("--pid", "7", "-o", "json", "--timeout", "3", "cpu"),
        ("--pid", "3", "cpu", "--pid", "7", "-o", "json"),
        ("-o", "table", "--pid=7", "cpu", "--output=json"),
    ],
)
def test_options_precede_or_follow_the_command(
    netutil: Netutil, agent: FakeAgent, arguments: tuple[str, ...]
) -> None:
    assert json.loads(netutil(*arguments).out)["cpuset"] == "0-3,8"
    assert agent.asked[0].pid == "7"


@pytest.mark.parametrize(
    "arguments",
    [("-o", "json", "node", "pods"), ("node", "-o", "json", "pods"), ("node", "pods", "-ojson")],
)
def test_options_stand_anywhere_around_node_pods(
    netutil: Netutil, arguments: tuple[str, ...]
) -> None:
    assert json.loads(netutil(*arguments).out)["pods"]


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ((), {"--socket", "--pid", "--env"}),
        (("cpu",), {"--socket", "--pid", "--topology"}),
        (("env",), {"--socket", "--pid"}),
        (("network",), {"--socket", "--pid", "--wait"}),
        (("watch",), {"--socket", "--env"}),
        (("all",), {"--socket", "--pid", "--env"}),
        (("dpdk",), {"--socket", "--pid", "--explain", "--numa-mem"}),
        (("node",), {"--admin-socket"}),
        (
            ("node", "pod"),
            {"--admin-socket", "--processes", "--threads", "--sort", "--interval"},
        ),
        (("node", "map"), {"--admin-socket"}),
        (
            ("node", "top"),
            {"--admin-socket", "--processes", "--threads", "--sort", "--once", "--interval"},
        ),
        (("node", "doctor"), {"--admin-socket", "--socket"}),
    ],
)
def test_help_lists_only_the_options_of_the_command(
    netutil: Netutil, command: tuple[str, ...], own: set[str]
) -> None:
    common = {"--help", "--output", "--timeout", "--version"}
    usage, _, options = netutil(*command, "--help").out.partition("options:")
    assert set(re.findall(r"^  (?:-\w.*, )?(--[a-z-]+)", options, re.M)) == common | own
    assert usage.startswith(" ".join(("usage: netutil", *command)))


def test_sockets_are_named_by_options_too(
    netutil: Netutil, agent: FakeAgent, directory: str
) -> None:
    assert netutil("--socket", agent.path, "cpu").code == 0
    assert netutil("node", "pods", "--admin-socket", agent.path).code == 0
    missing = netutil("cpu", "--socket", f"{directory}/none/net.sock")
    assert missing.code == Exit.UNAVAILABLE
    assert missing.err.splitlines()[0] == (
        f"netutil: directory {directory}/none of the socket does not exist"
        " [SOCKET_DIRECTORY_MISSING]"
    )
    assert missing.err.splitlines()[1].startswith("mount the hostPath directory")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("node",),
        ("-o", "xml"),
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--timeout", "soon"),
        ("--pid", "-1"),
        ("--pid", "0"),
        ("--pid", "\u0663"),
        ("env", "A", "B"),
        ("--pid", "1", "node", "pods"),
        ("--socket", "/tmp/x", "node", "pods"),
        ("--admin-socket", "/tmp/x", "cpu"),
        ("env", ""),
        ("env", "--env"),
        ("--env", "cpu"),
        ("watch", "--pid", "1"),
        ("cpu", "-o", "export"),
        ("node", "pods", "-n", "a", "-A"),
        ("node", "pods", "-l", "a=b=c"),
        ("node", "pods", "-o", "jsonpath={.pods"),
        ("node", "pods", "-o", "jsonpath"),
        ("node", "trace", "--pod", "web-0"),
        ("node", "pod", "a/b", "-o", "jsonpath={.pod}"),
        ("env", "\udcff"),
        ("-o", "args", "cpu"),
        ("cpu", "-o", "shell"),
        ("-o", "table", "dpdk"),
        ("dpdk", "-o", "yaml"),
        ("cpu", "--explain"),
        ("--admin-socket", "/tmp/x", "all"),
        ("node", "pods", "--sort", "colour"),
        ("node", "pod", "web-0"),
        ("node", "pod", "default/"),
        ("node", "pod", "a/b/c"),
        ("node", "explain"),
        ("node", "explain", "self"),
        ("node", "top", "--interval", "0"),
        ("node", "top", "-o", "yaml"),
        ("node", "trace", "-o", "wide"),
        ("node", "pods", "--socket", "/tmp/x"),
        ("node", "doctor", "--pid", "1"),
    ],
)
def test_a_wrong_command_line_ends_as_usage(
    netutil: Netutil, agent: FakeAgent, arguments: tuple[str, ...]
) -> None:
    ended = netutil(*arguments)
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert "netutil" in ended.err
    assert agent.asked == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Exit.NOT_PERMITTED),
        (grpc.StatusCode.PERMISSION_DENIED, Exit.NOT_PERMITTED),
        (grpc.StatusCode.INVALID_ARGUMENT, Exit.USAGE),
        (grpc.StatusCode.NOT_FOUND, Exit.NOT_FOUND),
        (grpc.StatusCode.FAILED_PRECONDITION, Exit.FAILED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Exit.FAILED),
        (grpc.StatusCode.UNAVAILABLE, Exit.UNAVAILABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Exit.UNAVAILABLE),
        (grpc.StatusCode.INTERNAL, Exit.FAILED),
    ],
)
def test_the_exit_code_follows_the_kind_of_error(
    netutil: Netutil, agent: FakeAgent, code: grpc.StatusCode, expected: Exit
) -> None:
    agent.refusals = deque([Refusal(code, "It failed.", "R", "", "Repair it.", "netutil", 60)])
    ended = netutil("cpu")
    assert ended.code == expected
    assert ended.err == "netutil: It failed. [R]\nRepair it.\n"


def test_json_was_asked_for_so_errors_are_json(netutil: Netutil, agent: FakeAgent) -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, HOSTILE, "PID_NOT_FOUND", "/proc/7", "Ask.")
    agent.refusals = deque([refusal])
    ended = netutil("cpu", "-o", "json")
    assert ended.out == ""
    assert ended.err.isascii() and ended.err.rstrip("\n").isprintable()
    assert json.loads(ended.err) == {
        "error": {
            "code": "NOT_FOUND",
            "reason": "PID_NOT_FOUND",
            "message": HOSTILE,
            "read": "/proc/7",
            "advice": "Ask.",
        }
    }


def test_no_control_character_of_an_error_is_printed(netutil: Netutil, agent: FakeAgent) -> None:
    agent.refusals = deque([Refusal(grpc.StatusCode.INTERNAL, HOSTILE, "R", "", HOSTILE)])
    err = netutil("cpu").err
    assert err.count("\n") == 2
    assert err.replace("\n", "").replace("\t", "").isprintable()


def test_alone_it_prints_what_was_answered_beside_what_failed(
    netutil: Netutil, agent: FakeAgent
) -> None:
    broken = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "the annotation is broken", "R")
    agent.refused_methods["NetworkStatusRequest"] = broken
    ended = netutil("-o", "json")
    assert list(json.loads(ended.out)) == ["cpu", "environment"]
    assert json.loads(ended.err)["error"]["message"] == "the annotation is broken"
    assert ended.code == Exit.FAILED


def test_one_failure_of_all_questions_is_reported_once(netutil: Netutil, socket_path: str) -> None:
    ended = netutil("--socket", f"{socket_path}.none", "--timeout", "0.2")
    assert (ended.code, ended.out) == (Exit.UNAVAILABLE, "")
    assert ended.err.count("does not exist") == 1


def test_help_explains_every_exit_code(netutil: Netutil) -> None:
    out = netutil("--help").out
    for code in Exit:
        assert re.search(rf"^ +{code.value}  ", out, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("--version",), ("cpu", "--version"), ("node", "--version")])
def test_the_version_is_that_of_the_package(netutil: Netutil, arguments: tuple[str, ...]) -> None:
    ended = netutil(*arguments)
    assert ended.code == 0
    assert re.fullmatch(r"netutil \d+\.\d+.*\n", ended.out)
