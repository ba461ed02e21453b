"""Metrics that the components count themselves: names, help texts, and what reads each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.components import Components, Facts, Observers, PodService
from netutil.agent.config import Limits, flag_values
from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.identity.held_cgroups import HeldCgroups
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.limits.limits import MAX_HOST_ROOT_CONNECTIONS
from netutil.agent.observability.metrics import LabelledReadings, Readings
from netutil.agent.pods.claims_api import ClaimsApi
from netutil.agent.pods.directory import PodDirectory

_Found = tuple[Readings, Readings, LabelledReadings]
"""Gauges, counters, and labelled counters."""


def readings(components: Components) -> tuple[_Found, ...]:
    """Return what reads each metric of the components. docs/operate.md lists the metrics."""
    kubernetes, service = components.kubernetes, components.service
    return (
        _process(components.observers),
        _connections(service),
        _calls(service),
        _facts(components.facts, components.identity.tree.held),
        _pods(kubernetes.pods),
        _resources(kubernetes.resources),
        _claims(kubernetes.claims),
        _device_plugin(kubernetes.device_plugin),
    )


def _process(observers: Observers) -> _Found:
    """Return the metrics of the agent's process."""
    watchdog, memory = observers.watchdog, observers.memory
    loop = asyncio.get_running_loop()
    gauges = {
        "netutil_tasks": ("Tasks of the event loop.", lambda: float(len(asyncio.all_tasks(loop)))),
        "netutil_event_loop_lag_seconds": (
            "Time since the last iteration of the event loop.",
            watchdog.lag_seconds,
        ),
        "netutil_memory_bytes": (
            "Memory of the agent's cgroup.",
            lambda: float(memory.use.used_bytes),
        ),
        "netutil_memory_limit_bytes": (
            "Memory limit of the agent's cgroup.",
            lambda: float(memory.use.limit_bytes or 0),
        ),
    }
    counters = {
        "netutil_event_loop_stalls": (
            "Stalls of the event loop.",
            lambda: float(watchdog.stalls),
        ),
    }
    return gauges, counters, {}


def _connections(service: PodService) -> _Found:
    """Return the metrics of the pods' socket and its connections."""
    rules, registry, policy = service.socket.rules, service.policy.registry, service.policy
    max_connections, counts = rules.limits.total, rules.counts
    closer, socket_health = service.socket.closer, service.socket.health

    def accept(name: str) -> Callable[[], float]:
        return lambda: float(getattr(counts.accept, name))

    gauges = {
        "netutil_open_connections": ("Open connections.", lambda: float(len(registry))),
        "netutil_max_connections": (
            "The limit of open connections.",
            lambda: float(max_connections),
        ),
        "netutil_closing_sockets": (
            "Sockets that wait for the thread that closes what their peers passed.",
            lambda: 0.0 if closer is None else float(closer.waiting),
        ),
    }
    counters = {
        "netutil_connections_deferred": (
            "Connections that were identified in the order of the pods.",
            lambda: float(counts.deferred),
        ),
        "netutil_connection_floods": (
            "Floods of connections that came to nothing.",
            accept("floods"),
        ),
        "netutil_accept_failures": ("Accepts that failed.", accept("accept_failures")),
        "netutil_accept_pauses": (
            "Pauses of accepting while as many sockets wait to be closed as may.",
            accept("pauses"),
        ),
        "netutil_scheduler_throttled": (
            "Portions of work, steps of calls and new connections that waited.",
            lambda: float(policy.scheduler.waits),
        ),
        "netutil_pod_pauses": (
            "Pauses in the service of a pod, for its overhead.",
            lambda: float(policy.pauses),
        ),
        "netutil_socket_rebinds": (
            "Sockets that were rebound.",
            lambda: float(socket_health.rebinds),
        ),
        "netutil_socket_directories": (
            "Directories at a socket's path that were moved aside.",
            lambda: float(socket_health.directories),
        ),
    }
    labelled = {
        "netutil_connections": (
            "Connections: accepted, rejected with an error, dropped, aborted by the peer.",
            "result",
            {
                "accepted": accept("accepted"),
                "rejected": lambda: float(counts.rejected),
                "dropped": accept("closed_at_once"),
                "aborted": accept("aborted"),
            },
        ),
    }
    return gauges, counters, labelled


def _calls(service: PodService) -> _Found:
    """Return the metrics of calls and streams."""
    in_flight, notifier = service.in_flight, service.notifier
    gauges = {
        "netutil_calls_in_flight": (
            "Calls in flight.",
            lambda: float(in_flight.calls),
        ),
        "netutil_streams": ("Streams among them.", lambda: float(in_flight.streams)),
        "netutil_send_buffer_bytes": (
            "Unread bytes of large responses.",
            lambda: float(in_flight.bytes),
        ),
        "netutil_watchers": ("Watch streams.", lambda: float(len(notifier))),
    }
    counters = {
        "netutil_snapshots_sent": (
            "Snapshots sent to watchers.",
            lambda: float(notifier.snapshots),
        ),
    }
    return gauges, counters, {}


def _facts(facts: Facts, held_cgroups: HeldCgroups) -> _Found:
    """Return the metrics of reads of the host, and what is held of them."""
    reads, callers, containers = facts.reads, facts.callers, facts.containers
    networks, environments = facts.networks, facts.collector.environments.held
    pci = facts.collector.pci
    gauges = {
        "netutil_network_namespaces": (
            "Network namespaces of pods that are held.",
            lambda: float(len(networks)),
        ),
        "netutil_host_read_threads": ("Threads for blocking reads.", lambda: float(reads.threads)),
        "netutil_held_environments": (
            "Parsed environments that are held.",
            lambda: float(len(environments)),
        ),
        "netutil_held_environment_bytes": (
            "Memory of held environments.",
            lambda: float(environments.size_bytes),
        ),
        "netutil_held_pci_functions": (
            "PCI functions that are held, those that the host lacks included.",
            lambda: float(len(pci)),
        ),
        "netutil_held_containers": (
            "Containers whose cgroup files are held open.",
            lambda: float(len(containers)),
        ),
        "netutil_held_files": (
            "Descriptors of held containers.",
            lambda: float(containers.descriptors),
        ),
        "netutil_held_cgroups": (
            "Cgroups of pods that are held because root made them.",
            lambda: float(len(held_cgroups)),
        ),
    }
    counters = {
        "netutil_host_read_timeouts": (
            "Reads that timed out.",
            lambda: float(reads.timeouts),
        ),
        "netutil_network_reads": (
            "Readings of a whole network namespace.",
            lambda: float(networks.reads),
        ),
        "netutil_network_evictions": (
            "Network namespaces that were evicted from a full cache.",
            lambda: float(networks.evictions),
        ),
        "netutil_cgroup_scans": (
            "Scans of all cgroups of the node.",
            lambda: float(callers.directories.walks),
        ),
        "netutil_cgroup_path_checks": (
            "Checks by path of who made a pod's cgroup.",
            lambda: float(held_cgroups.checked_by_path),
        ),
        "netutil_held_containers_evicted": (
            "Containers whose cgroup files were evicted from a full cache.",
            lambda: float(containers.evictions),
        ),
        "netutil_held_containers_ended": (
            "Containers whose cgroup files were closed because the cgroup was removed.",
            lambda: float(containers.ended),
        ),
    }
    return gauges, counters, {}


def _pods(pods: PodDirectory) -> _Found:
    """Return the metrics of the pod list."""

    def stats(name: str) -> Callable[[], float]:
        return lambda: float(getattr(pods.stats, name))

    gauges = {
        "netutil_kept_answer_bytes": (
            "Encoded answers that are kept with the last pod list.",
            lambda: float(pods.kept_bytes),
        ),
        "netutil_pod_stream_up": ("1 while pods are pushed.", stats("streaming")),
        "netutil_pod_stream_unconfirmed_seconds": (
            "Time since the pushed pods were last known to be complete.",
            stats("unconfirmed_seconds"),
        ),
    }
    counters = {
        "netutil_pod_list_fetches": ("Fetches of the pod list.", stats("fetches")),
        "netutil_pod_list_failures": ("Failed fetches of the pod list.", stats("failures")),
        "netutil_pod_list_misses": ("Callers that the pod list did not contain.", stats("misses")),
        "netutil_pod_fields_not_understood": (
            "Fields of pods that were read as unknown, at each reading.",
            lambda: float(pods.flaws.fields),
        ),
        "netutil_pod_entries_left_out": (
            "Entries of pod lists without a name, a namespace or a UID, at each reading.",
            lambda: float(pods.flaws.entries),
        ),
        "netutil_pod_stream_restarts": ("Restarts of the stream of pods.", stats("restarts")),
        "netutil_pod_stream_comparisons": (
            "Comparisons of the stream of pods with a list.",
            stats("comparisons"),
        ),
        "netutil_pod_stream_missed": (
            "Streams of pods that lacked what a list had.",
            stats("missed"),
        ),
        "netutil_pod_stream_changes": ("Changed lists that were pushed.", stats("changes")),
    }
    return gauges, counters, {}


def _resources(resources: ResourceDirectory) -> _Found:
    """Return the metrics of PodResources."""

    def resource_stats(name: str) -> Callable[[], float]:
        return lambda: float(getattr(resources.stats, name))

    counters = {
        "netutil_podresources_failures": (
            "PodResources lists that failed.",
            resource_stats("failures"),
        ),
    }
    labelled = {
        "netutil_podresources_requests": (
            "Calls to the PodResources socket of the kubelet.",
            "method",
            {"List": resource_stats("fetches"), "Get": resource_stats("gets")},
        ),
    }
    return {}, counters, labelled


def _claims(claims: ClaimSources) -> _Found:
    """Return the metrics of the sources of ResourceClaims."""
    metadata = claims.files

    def claims_api(read: Callable[[ClaimsApi], float]) -> Callable[[], float]:
        return lambda: 0.0 if claims.api is None else float(read(claims.api))

    gauges = {
        "netutil_held_device_metadata": (
            "Files of drivers of ResourceClaims that are held.",
            lambda: 0.0 if metadata is None else float(len(metadata)),
        ),
        "netutil_held_device_metadata_bytes": (
            "Memory of held files of drivers of ResourceClaims.",
            lambda: 0.0 if metadata is None else float(metadata.held_bytes),
        ),
        "netutil_held_claims": ("Claims of the API server that are held.", claims_api(len)),
        "netutil_claim_streams_up": (
            "1 while the API server's claims and slices are followed.",
            claims_api(lambda api: float(api.is_current)),
        ),
        "netutil_claim_streams_unconfirmed_seconds": (
            "Time since claims and slices were last known to be complete.",
            claims_api(lambda api: api.unconfirmed_seconds),
        ),
    }
    counters = {
        "netutil_device_metadata_reads": (
            "Readings of a file of a driver of ResourceClaims.",
            lambda: 0.0 if metadata is None else float(metadata.stats.reads),
        ),
        "netutil_device_metadata_failures": (
            "Readings of such a file that could not be used.",
            lambda: 0.0 if metadata is None else float(metadata.stats.failures),
        ),
        "netutil_claim_stream_failures": (
            "Failures of the streams of claims and slices.",
            claims_api(lambda api: float(api.failures)),
        ),
    }
    return gauges, counters, {}


def _device_plugin(device_plugin: PluginState) -> _Found:
    """Return the metrics of the device plugin."""
    gauges = {
        "netutil_device_plugin_configured": (
            "1 with --device-plugin.",
            lambda: float(bool(device_plugin.resource_name)),
        ),
        "netutil_device_plugin_registered": (
            "1 while the kubelet has the device plugin.",
            lambda: float(device_plugin.registered),
        ),
    }
    counters = {
        "netutil_device_plugin_registrations": (
            "Registrations of the device plugin.",
            lambda: float(device_plugin.registrations),
        ),
        "netutil_device_plugin_failures": (
            "Failed registrations of the device plugin.",
            lambda: float(device_plugin.failures),
        ),
        "netutil_device_plugin_allocations": (
            "Containers that got the mount from the device plugin.",
            lambda: float(device_plugin.allocations.containers),
        ),
    }
    return gauges, counters, {}


def limits_of(limits: Limits) -> dict[str, float]:
    """Return the limits, by the value of the label of `netutil_limit`."""
    return {"host_root_connections": float(MAX_HOST_ROOT_CONNECTIONS)} | {
        flag.removeprefix("max-").replace("-", "_"): float(cast(int, value))
        for flag, value in flag_values(limits)
    }
