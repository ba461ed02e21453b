"""The number of Python calls and files of a call through the agent is bounded."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest

from bench.trace import traced
from tests.support.lab.observing import needs_lab

pytestmark = [pytest.mark.root, needs_lab]

GET_POD_CALLS, GET_POD_FILES = 74, 21
GET_CPU_INFO_CALLS, GET_CPU_INFO_FILES = 86, 24
"""Python calls in the agent's own code, and its files, as maxima. A quiet machine has 72 and 84
calls; on a loaded one a call takes an iteration of the loop more. With those of the standard
library GetCPUInfo takes fewer than a hundred."""
_PACKAGES_OF_A_CALL = Counter(
    api=2,
    collect=3,
    connections=1,
    facts=2,
    grpcserver=7,
    identity=1,
    limits=3,
    messages=1,
    observability=2,
    pods=2,
)
"""Files of GetCPUInfo by package, as maxima. Each of these packages has its own job in a call."""

GET_ALL_CALLS = 90
"""Of what puts the answer to GetAll together. How its environment is read is not among them."""
_OF_GET_ALL = (
    "agent/api/pod_service.py",
    *(
        f"agent/collect/{kind}_collector.py"
        for kind in ("cpu", "device", "environment", "hugepage", "interface", "link", "network")
    ),
    "agent/collect/pod_lookup.py",
    "agent/messages/all_facts.py",
    "agent/messages/answers.py",
    "agent/messages/encode.py",
    "agent/messages/encode_interfaces.py",
)


@pytest.mark.alone
@pytest.mark.interpreted
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: what asks is in C")
def test_the_way_of_a_call_is_short() -> None:
    with traced() as agent:
        way = agent.way("GetPod")
        own_pid = agent.way("GetPod", own_pid=True)
        networks = agent.way("GetNetworkStatus")
        cpus = agent.way("GetCPUInfo")
        everything = agent.way("GetAll")
    print(
        f"GetCPUInfo: {cpus.own_calls:.0f} calls, {len(cpus.files)} files, {cpus.moves:.0f} moves"
    )
    assert way.own_calls <= GET_POD_CALLS, way.functions
    assert len(way.files) <= GET_POD_FILES, way.files
    comparison = ("_drop_own_pid", "PinnedProcess.has_number")
    looked = {(file, name) for file, name in own_pid.of_service() if name not in comparison}
    assert looked == set(way.of_service()), "the caller's own pid is to cost nothing"
    assert networks.own_calls <= GET_POD_CALLS + 2, networks.functions
    assert cpus.own_calls <= GET_CPU_INFO_CALLS, cpus.functions
    assert len(cpus.files) <= GET_CPU_INFO_FILES, cpus.files
    assert Counter(file.split("/")[1] for file in cpus.files) <= _PACKAGES_OF_A_CALL, cpus.files
    joined = sum(number for file, _, number in everything.functions if file in _OF_GET_ALL)
    assert 0 < joined <= GET_ALL_CALLS, everything.functions
    assert "agent/facts/sysfs.py" not in everything.files, "it is what reads files by path"
    waits = [name for file, name, _ in everything.functions if file == "asyncio/tasks.py"]
    assert "gather" not in waits, "parts that are held are not waited for"
