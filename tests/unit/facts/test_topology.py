"""Each CPU of a node with two sockets, and of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts import topology as topology_module
from netutil.agent.facts.topology import Cpu, Topology, read_topology

from tests.support.nodes.sriov_node import OFFLINE_CPU, build_sriov_node, write


@pytest.fixture
def root(tmp_path: Path) -> str:
    return build_sriov_node(tmp_path)


def system(root: str) -> Path:
    return Path(root, "sys/devices/system")


def test_all_cpus_are_listed_in_order(root: str) -> None:
    assert [cpu.id for cpu in read_topology(root)] == list(range(8))


def test_a_cpu_has_its_core_socket_node_and_siblings(root: str) -> None:
    (cpu,) = read_topology(root, [5])
    assert cpu == Cpu(
        id=5,
        core=0,
        socket=1,
        numa_node=1,
        siblings=(4, 5),
        online=True,
        isolated=False,
        nohz_full=False,
    )


def test_only_the_cpus_that_are_asked_for_are_answered(root: str) -> None:
    assert [cpu.id for cpu in read_topology(root, (6, 0, 6))] == [0, 6]


def test_isolated_and_tickless_cpus_are_marked(root: str) -> None:
    cpus = read_topology(root)
    assert [cpu.id for cpu in cpus if cpu.isolated] == [2, 3, 6, 7]
    assert [cpu.id for cpu in cpus if cpu.nohz_full] == [6, 7]


def test_an_offline_cpu_keeps_its_node_and_has_no_core(root: str) -> None:
    (cpu,) = read_topology(root, [OFFLINE_CPU])
    assert (cpu.online, cpu.core, cpu.socket, cpu.siblings, cpu.numa_node) == (
        False,
        None,
        None,
        (),
        1,
    )


def test_a_cpu_that_the_node_does_not_have_is_offline(root: str) -> None:
    assert read_topology(root, [4711]) == (Cpu(4711, None, None, None, (), False, False, False),)


def test_siblings_have_their_old_name_before_linux_5_3(root: str) -> None:
    for folder in system(root).glob("cpu/cpu*/topology"):
        (folder / "core_cpus_list").unlink()
    assert read_topology(root, [0])[0].siblings == (0, 1)


def test_a_kernel_without_isolation_isolates_nothing(root: str) -> None:
    (system(root) / "cpu/isolated").unlink()
    write(system(root) / "cpu/nohz_full", "  (null)")
    assert not any(cpu.isolated or cpu.nohz_full for cpu in read_topology(root))


def test_cpus_with_a_topology_are_online_without_hotplug(root: str) -> None:
    (system(root) / "cpu/online").unlink()
    assert [cpu.id for cpu in read_topology(root) if cpu.online] == list(range(7))


def test_a_kernel_without_numa_names_no_node(root: str) -> None:
    shutil.rmtree(system(root) / "node")
    for link in system(root).glob("cpu/cpu*/node*"):
        link.unlink()
    assert {cpu.numa_node for cpu in read_topology(root)} == {None}


def test_minus_one_is_no_socket(root: str) -> None:
    write(system(root) / "cpu/cpu0/topology/physical_package_id", "-1")
    assert read_topology(root, [0])[0].socket is None


def test_a_list_that_no_kernel_writes_is_an_error_with_its_file(root: str) -> None:
    write(system(root) / "cpu/isolated", "0-4000000000")
    with pytest.raises(FailedPrecondition) as refused:
        read_topology(root)
    assert refused.value.reason is Reason.CPU_LIST_MALFORMED
    assert refused.value.read.endswith("/cpu/isolated")


def test_this_machines_cpus_are_what_lscpu_shows() -> None:
    shown = subprocess.run(["lscpu", "-J", "-b", "-e"], check=True, capture_output=True).stdout
    theirs = {int(one["cpu"]): one for one in json.loads(shown)["cpus"]}
    ours = {cpu.id: cpu for cpu in read_topology("/") if cpu.online}
    assert ours.keys() == theirs.keys()
    for number, cpu in ours.items():
        assert cpu.numa_node == _number(theirs[number].get("node"))
        same_core = {n for n, one in theirs.items() if one["core"] == theirs[number]["core"]}
        assert set(cpu.siblings) == same_core


def _number(text: object) -> int | None:
    return None if text is None else int(str(text))


def test_a_topology_that_was_read_is_known(root: str) -> None:
    topology = Topology(root)
    assert topology.known([1]) is None
    assert topology.read([5, 0]) == read_topology(root, [0, 5])
    assert topology.known([5, 0]) == read_topology(root, [0, 5])
    assert topology.known([0, 1]) is None
    topology.read([1])
    assert topology.known([0, 1, 5]) == read_topology(root, [0, 1, 5])


@pytest.mark.parametrize("name", ["online", "isolated", "nohz_full"])
def test_a_change_of_the_cpus_makes_the_topology_unknown(name: str, root: str) -> None:
    topology = Topology(root)
    topology.read(range(8))
    write(system(root) / "cpu" / name, "1-2")
    assert topology.known([0]) is None
    assert topology.read([0]) == read_topology(root, [0])
    assert topology.known([0]) == read_topology(root, [0])
    assert topology.known([1]) is None


def test_cpus_that_change_while_they_are_read_are_not_kept(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = Topology(root)

    def changing(host_root: str, cpus: Iterable[int]) -> tuple[Cpu, ...]:
        found = read_topology(host_root, cpus)
        write(system(root) / "cpu/online", "0-3")
        return found

    monkeypatch.setattr(topology_module, "read_topology", changing)
    topology.read([5])
    assert topology.known([5]) is None
