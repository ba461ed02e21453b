"""The .proto of the API says of every field of an answer where it comes from."""

from __future__ import annotations

import re

import pytest

from tests.support.repository import ROOT

PROTO = ROOT / "proto/netutil/v1alpha/netutil.proto"
MESSAGE = re.compile(
    r"(?P<comment>(?:^//.*\n)*)^message (?P<name>\w+) \{\n(?P<body>(?:^ .*\n|\n)*)^\}", re.M
)
FIELD = re.compile(r"^  (?:repeated |optional )?(?P<type>[\w.<>, ]+) (?P<name>\w+) = \d+;$")
MESSAGES = {found["name"]: found for found in MESSAGE.finditer(PROTO.read_text(encoding="utf-8"))}


def unsaid(body: str) -> list[str]:
    """The fields without a comment above; a comment counts for the fields right below it."""
    fields, said = [], False
    for line in body.split("\n"):
        if line.startswith("  //"):
            said = True
        elif (field := FIELD.match(line)) and not said:
            fields.append(field["name"])
        elif not line.strip():
            said = False
    return fields


def test_the_file_is_understood() -> None:
    assert len(MESSAGES) > 40
    assert unsaid("  // a\n  string b = 1;\n\n  string c = 2;\n") == ["c"]


@pytest.mark.parametrize("name", [one for one in MESSAGES if not one.endswith("Request")])
def test_every_field_or_its_message_says_where_it_comes_from(name: str) -> None:
    message = MESSAGES[name]
    assert message["comment"] or not unsaid(message["body"])


# What names a source: a file of the kernel, an attribute of rtnetlink, a field of Kubernetes, …
SOURCE = re.compile(
    r"/proc/|/sys/|cgroup|cpuset|cpu\.|\b(?:IFLA|IFA|RTA|RTM|IFF)_|\b(?:ifi|ifa|rtm)_"
    r"|network-status|device-info|annotation|PCIDEVICE_|Device Information Specification"
    r"|rtnl_link_stats64|PodResources|pod list|spec\b|metadata|kubelet|hugetlb|_hugepages"
)


def without_source(message: re.Match[str]) -> list[str]:
    """The fields for which neither they nor their message name one; messages are seen alone."""
    found, said, above = [], "", False
    for line in message["body"].split("\n"):
        if line.startswith("  //"):
            said, above = (said if above else "") + line, True
            continue
        above = False
        if field := FIELD.match(line):
            if field["type"] not in MESSAGES and not SOURCE.search(said + message["comment"]):
                found.append(field["name"])
        else:
            said = ""
    return found


# A comparison, a failure and the number of a snapshot are the agent's own.
OF_THE_AGENT = {"PartError", "WatchResponse"}
FACTS = [one for one in MESSAGES if not one.endswith("Request") and one not in OF_THE_AGENT]


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_names_its_source(name: str) -> None:
    assert without_source(MESSAGES[name]) == []


def test_a_field_without_a_source_is_found() -> None:
    text = "message M {\n  // Its size.\n  uint64 size = 1;\n  // IFLA_MTU.\n  uint32 mtu = 2;\n}\n"
    (message,) = MESSAGE.finditer(text)
    assert without_source(message) == ["size"]
