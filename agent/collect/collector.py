"""Collects the facts of callers: one collector for each kind of answer.

Nothing here knows requests or messages. `pid` is as in a request: "" is the calling process.
"""

from __future__ import annotations

from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.claim_devices import ClaimDevices
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.cpu_collector import CpuCollector
from netutil.agent.collect.device_collector import DeviceCollector
from netutil.agent.collect.environment_collector import EnvironmentCollector
from netutil.agent.collect.environment_reader import EnvironmentReader
from netutil.agent.collect.hugepage_collector import HugepageCollector
from netutil.agent.collect.interface_collector import InterfaceCollector
from netutil.agent.collect.link_collector import LinkCollector
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_collector import NetworkCollector
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.pod_lookup import PodLookup
from netutil.agent.kubelet.podresources.directory import ResourceDirectory


class Collector:
    """The collectors of all kinds of facts, for callers that are identified."""

    def __init__(
        self,
        callers: CallerResolver,
        environments: EnvironmentReader,
        resources: ResourceDirectory,
        host_root: str,
        containers: ContainerCache,
        live: LiveNetworks,
        claims: ClaimSources | None = None,
    ) -> None:
        """`claims` is None where the devices of claims are not to be read."""
        self.reads = reads = callers.reads
        self.pci = PciCache(host_root)
        self.claim_devices = ClaimDevices(claims or ClaimSources(), reads, self.pci)
        self.lookup = PodLookup(callers)
        links = LinkCollector(callers, self.lookup, live)
        self.cpus = CpuCollector(callers, self.lookup, reads, containers, host_root)
        self.hugepages = HugepageCollector(callers, reads, containers, host_root)
        self.environments = EnvironmentCollector(environments, reads)
        self.networks = NetworkCollector(self.lookup, links, reads)
        self.devices = DeviceCollector(self.lookup, reads, resources, self.pci, self.claim_devices)
        self.interfaces = InterfaceCollector(
            self.networks, links, self.environments, self.devices, reads, self.pci
        )
