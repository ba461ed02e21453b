"""Constructors of the agent and of the client: at most seven arguments, but of records.

What a component is built from is grouped, as values. A record has the fields of what it is read
from, which are as many as the kernel, Kubernetes or the API has. (ruff counts those of functions.)
"""

from __future__ import annotations

import argparse
import enum
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import netutil.agent
import netutil.client
import pytest

MAX_ARGUMENTS = 7
# Their constructors are those of the standard library.
OF_THE_LIBRARY = (argparse.Action, argparse.ArgumentParser, enum.Enum)
RECORDS = {
    "fields of a file or a message of the kernel": {
        "agent.collect.processes.ProcessFacts",
        "agent.collect.processes.ThreadFacts",
        "agent.facts.links.Link",
        "agent.parsers.pci.PciInfo",
        "agent.facts.topology.Cpu",
        "agent.parsers.rtnetlink.Counters",
        "agent.parsers.rtnetlink.LinkMessage",
    },
    "fields of an object of Kubernetes, of an annotation or of a driver's file": {
        "agent.parsers.claims.Attribute",
        "agent.parsers.claims.ClaimDevice",
        "agent.parsers.claims.ClaimRequest",
        "agent.parsers.network_status.NetworkStatus",
        "agent.pods.http.kubeconfig.User",
        "agent.pods.model.Status",
        "agent.pods.sources.claims_model.Claim",
        "agent.pods.spec.Spec",
    },
    "an interface as all sources report it, and the answer about all of them": {
        "agent.collect.results.Interfaces",
        "agent.facts.interfaces.Interface",
    },
    "header fields of one request, made for each call": {
        "agent.grpcserver.call.CallHead",
        "agent.grpcserver.headers.Request",
    },
    "fields of a message of the API": {
        "client.models.core.CPU",
        "client.models.core.Network",
        "client.models.core.NodeCPU",
        "client.models.core.Pod",
        "client.models.devices.All",
        "client.models.devices.ClaimDevice",
        "client.models.devices.ClaimRequest",
        "client.models.devices.Interface",
        "client.models.devices.Interfaces",
        "client.models.devices.Link",
        "client.models.devices.LinkCounters",
        "client.models.devices.PCIInfo",
        "client.models.devices.Resources",
        "client.models.node.Activity",
        "client.models.node.DescribedContainer",
        "client.models.node.DescribedPod",
        "client.models.node.HostInterface",
        "client.models.node.NodePod",
        "client.models.node.PodActivity",
        "client.models.node.TracedCall",
        "client.models.processes.NodeProcess",
        "client.models.processes.NodeThread",
        "client.models.processes.ProcessesPart",
    },
    "columns of a table, boxes of a picture, flags of a DPDK program": {
        "client.cli.render.processes.ProcessUse",
        "client.cli.render.processes.ThreadUse",
        "client.cli.render.top.PodRates",
        "client.cli.render.top.Rates",
        "client.dpdk.functions.Devices",
        "client.dpdk.view.OwnView",
        "client.nodemap.relations.Relations",
        "client.nodemap.scene.Box",
    },
}


def modules() -> Iterator[ModuleType]:
    for package in (netutil.agent, netutil.client):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def arguments_of(kind: type) -> int:
    """The arguments that a constructor names, those that a base class gives it included."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # a class of C without a signature
        return 0
    named = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(one.kind not in named for one in parameters)


def constructors() -> dict[str, int]:
    """The arguments of each class that the agent and the client define, by its name."""
    return {
        f"{module.__name__.removeprefix('netutil.')}.{name}": arguments_of(kind)
        for module in modules()
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and kind.__module__ == module.__name__
        and not issubclass(kind, OF_THE_LIBRARY)
    }


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    return constructors()


def test_no_constructor_but_a_records_takes_more_than_seven(found: dict[str, int]) -> None:
    excepted = set().union(*RECORDS.values())
    larger = {name: number for name, number in found.items() if number > MAX_ARGUMENTS}
    assert larger.keys() - excepted == set(), larger


def test_each_record_is_there_and_takes_more_than_seven(found: dict[str, int]) -> None:
    for name in set().union(*RECORDS.values()):
        assert found[name] > MAX_ARGUMENTS, name


def test_arguments_of_a_base_class_count() -> None:
    class Base:
        def __init__(self, first: int, second: int, *rest: int, third: int, **more: int) -> None:
            raise AssertionError((first, second, rest, third, more))

    class Derived(Base):
        pass

    assert arguments_of(Derived) == 3
