"""Tables of the answers of the operator socket. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from netutil.client.cli.render.cells import listed, observed, or_nothing, yes_no
from netutil.client.cli.render.claims import claim_notes
from netutil.client.cli.render.devices import (
    claimed,
    device,
    hugepages,
    not_known,
    resources,
    subject,
)
from netutil.client.cli.render.pod import tables_for
from netutil.client.cli.render.tables import Table, is_roomy
from netutil.client.cpulist import format_cpulist, parse_cpulist
from netutil.client.documents import rfc3339
from netutil.client.models.core import PartError
from netutil.client.models.devices import Interface, Interfaces, Resources
from netutil.client.models.node import (
    DescribedContainer,
    DescribedPod,
    FactSource,
    NodeContainer,
    NodePod,
    NodePods,
    ResourceAmount,
)
from netutil.client.text import NOTHING, certainty_mark, container_name

_NUMBERS = frozenset({"CONNS", "CALLS", "REFUSED", "FAILED", "NOT FOUND"})
_FULL_COLUMNS = 120
"""Columns of a terminal that is wide enough for every column of the table."""
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_ORDERS: dict[str, Callable[[NodePod], Any]] = {
    "name": lambda pod: 0,
    "calls": lambda pod: -pod.calls,
    "refused": lambda pod: -pod.refused,
    "failed": lambda pod: -pod.failed,
    "not-found": lambda pod: -pod.not_found,
    "connections": lambda pod: -pod.connections,
    "last-error": lambda pod: -(pod.last_error_at or _LONG_AGO).timestamp(),
}


def ordered(node: NodePods, order: str) -> Sequence[NodePod]:
    """The pods in an order of `--sort`, then by name."""
    return sorted(node.pods, key=_ORDERS[order])


def pods(node: NodePods, order: str, now: datetime, width: int | None) -> Table:
    """A line for each pod; fewer columns in a terminal of less than 100 or 120 columns."""
    roomy = is_roomy(width)
    full = width is None or width >= _FULL_COLUMNS
    columns: dict[str, Callable[[NodePod], str]] = {
        "POD": lambda pod: f"{pod.namespace}/{pod.name}",
        **({"READY": _ready} if roomy else {}),
        "CPUS": _all_cpus,
        "CONNS": lambda pod: str(pod.connections),
        "CALLS": lambda pod: str(pod.calls),
        **({"REFUSED": lambda pod: str(pod.refused)} if roomy else {}),
        **({"FAILED": lambda pod: str(pod.failed)} if full else {}),
        **({"NOT FOUND": lambda pod: str(pod.not_found)} if full else {}),
        "LAST ERROR": lambda pod: _last_error(pod, now),
    }
    rows = tuple(tuple(cell(pod) for cell in columns.values()) for pod in ordered(node, order))
    return Table("PODS", tuple(columns), rows, _notes(node), _NUMBERS, frozenset({"POD"}))


def pods_wide(node: NodePods, order: str) -> Table:
    """A line for each pod with all that the list has of it."""
    headers = (
        *("POD", "UID", "CONTAINERS", "QOS", "PHASE", "CPUS", "NETWORKS"),
        *("CONNS", "CALLS", "REFUSED", "FAILED", "NOT FOUND", "LAST ERROR"),
    )
    rows = tuple(_pod_wide(pod) for pod in ordered(node, order))
    return Table("PODS", headers, rows, _notes(node), _NUMBERS)


def _pod_wide(pod: NodePod) -> tuple[str, ...]:
    last = pod.last_error or NOTHING
    if pod.last_error_at is not None:
        last += f" {rfc3339(pod.last_error_at)}"
    return (
        f"{pod.namespace}/{pod.name}",
        pod.uid,
        listed(map(_container, pod.containers)),
        pod.qos_class or NOTHING,
        pod.phase or NOTHING,
        listed(dict.fromkeys(_cpu_sets(pod))),
        _networks_wide(pod),
        str(pod.connections),
        str(pod.calls),
        str(pod.refused),
        str(pod.failed),
        str(pod.not_found),
        last,
    )


def _networks_wide(pod: NodePod) -> str:
    """The known networks, and why others are not known."""
    if not pod.networks_error:
        return listed(pod.networks or ())
    remark = "unreadable" if pod.networks is None else "perhaps more"
    return " ".join((*(pod.networks or ()), f"{remark}: {pod.networks_error}"))


def _notes(node: NodePods) -> tuple[str, ...]:
    wrong = [pod for pod in node.pods if pod.networks_error]
    unreadable = sum(pod.networks is None for pod in wrong)
    counts = ((unreadable, "unreadable"), (len(wrong) - unreadable, "perhaps incomplete"))
    remarks = [f"networks of {number} {remark}" for number, remark in counts if number]
    count = f"{len(node.pods)} pod{'' if len(node.pods) == 1 else 's'}"
    said = [count, *observed(node.observed_at), *remarks, *(["see -o wide"] if remarks else [])]
    return (", ".join(said),)


def _ready(pod: NodePod) -> str:
    """The running containers of the pod; "?" where the pod list does not have all of them."""
    own = [one for one in pod.containers if one.kind == "container"]
    if not own or any(not one.name or one.state == "unknown" for one in own):
        return "?"
    return f"{sum(one.state == 'running' for one in own)}/{len(own)}"


def _last_error(pod: NodePod, now: datetime) -> str:
    if not pod.last_error:
        return NOTHING
    if pod.last_error_at is None:
        return pod.last_error
    return f"{pod.last_error} {ago(now, pod.last_error_at)}"


def ago(now: datetime, then: datetime) -> str:
    """The age in one unit ("42s", "7m", "3h", "12d")."""
    seconds = max(0, int((now - then).total_seconds()))
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def _container(container: NodeContainer) -> str:
    remarks = [
        *([] if container.kind == "container" else [container.kind]),
        *([] if container.state == "running" else [container.state]),
    ]
    name = container_name(container.name)
    return f"{name}({' '.join(remarks)})" if remarks else name


def _all_cpus(pod: NodePod) -> str:
    """The CPUs that any of its containers may use."""
    sets = [one.effective_cpus for one in pod.containers if one.effective_cpus]
    return format_cpulist(number for text in sets for number in parse_cpulist(text)) or NOTHING


def _cpu_sets(pod: NodePod) -> Iterator[str]:
    """The CPU set that all containers share, or one for each of them."""
    running = [container for container in pod.containers if container.effective_cpus]
    shared = len({container.effective_cpus for container in running}) == 1
    for container in running:
        name = container_name(container.name)
        yield container.effective_cpus if shared else f"{name}:{container.effective_cpus}"


def described_pod(answer: DescribedPod, now: datetime) -> tuple[Table, ...]:
    """Everything about one pod, and from where."""
    pod = answer.pod
    rows = [
        ("pod", f"{pod.namespace}/{pod.name}"),
        ("uid", pod.uid),
        *([("cgroup_uid", answer.cgroup_uid)] if answer.cgroup_uid != pod.uid else []),
        ("node", answer.node_name or NOTHING),
        ("service_account", answer.service_account or NOTHING),
        ("qos_class", pod.qos_class or NOTHING),
        ("phase", pod.phase or NOTHING),
        ("ips", listed(answer.ips)),
        ("host_network", yes_no(answer.host_network)),
        ("connections", str(pod.connections)),
        ("calls", str(pod.calls)),
        ("refused", str(pod.refused)),
        ("failed", str(pod.failed)),
        ("not_found", str(pod.not_found)),
        ("last_error", _last_error(pod, now)),
        *(("label", f"{key}={value}") for key, value in answer.labels.items()),
        *(("annotation", f"{name} (value not shown)") for name in answer.annotations),
        *(("not_understood", path) for path in answer.not_understood),
        *_sources(answer.sources),
    ]
    notes = tuple(observed(answer.observed_at))
    tables = [Table("POD", (), tuple(rows), notes, wraps=True)]
    if answer.resources:
        tables.append(_amounts(answer.resources))
    for container in answer.containers:
        tables += _described_container(container)
    if answer.network_status is not None and answer.network_status.status:
        tables.append(_networks(answer))
    found = answer.interfaces
    if found is not None and (found.interfaces or not_known(found)):
        tables.append(_interfaces(found))
    errors = [*answer.errors, *(e for one in answer.containers for e in one.every_error)]
    if errors:
        tables.append(_not_known(errors))
    return tuple(tables)


def _amounts(resources: Sequence[ResourceAmount]) -> Table:
    headers = ("RESOURCE", "REQUEST", "LIMIT", "GRANTED REQUEST", "GRANTED LIMIT")
    rows = tuple(
        (
            one.name,
            *(or_nothing(one.request), or_nothing(one.limit)),
            *(or_nothing(one.granted_request), or_nothing(one.granted_limit)),
        )
        for one in resources
    )
    return Table("RESOURCES OF THE POD AS A WHOLE", headers, rows)


def _networks(answer: DescribedPod) -> Table:
    assert answer.network_status is not None  # noqa: S101 - checked by the caller
    rows = tuple(
        (
            one.name or NOTHING,
            one.interface or NOTHING,
            listed(one.ips),
            yes_no(one.default),
            device(one.device_info),
        )
        for one in answer.network_status.status
    )
    return Table("NETWORKS AS REPORTED", ("NAME", "INTERFACE", "IPS", "DEFAULT", "DEVICE"), rows)


def _interfaces(found: Interfaces) -> Table:
    headers = ("NAME", "TYPE", "STATE", "MTU", "MAC", "NUMA", "DEVICE", "ADDRESSES")
    notes = [
        f"{one.name}: {drift.field} is reported as {drift.reported}, found {drift.found or NOTHING}"
        for one in found.interfaces
        for drift in one.drift
    ]
    notes += [note for one in found.interfaces for note in claim_notes(subject(one), one.claim)]
    notes += not_known(found)
    return Table("INTERFACES", headers, tuple(map(_interface, found.interfaces)), tuple(notes))


def _interface(one: Interface) -> tuple[str, ...]:
    link = one.link
    addresses = [each.address for each in link.addresses] if link else []
    return (
        one.name or NOTHING,
        str(one.device_type),
        or_nothing(link.operational_state if link else None),
        or_nothing(link.mtu if link else None),
        or_nothing(link.mac if link else None),
        or_nothing(one.pci.numa_node if one.pci else None),
        f"{one.pci.address}{certainty_mark(one.device_source)}" if one.pci else claimed(one),
        listed(addresses),
    )


def _described_container(one: DescribedContainer) -> list[Table]:
    container = one.container
    more = f" and {one.processes - len(one.pids)} more" if one.processes > len(one.pids) else ""
    rows = [
        ("kind", container.kind),
        ("state", container.state),
        ("id", container.id or NOTHING),
        ("started_at", rfc3339(one.started_at) if one.started_at else NOTHING),
        ("host_pids", f"{listed(one.pids)}{more}"),
    ]
    if one.cpu is not None:
        (properties, *_) = tables_for(one.cpu)
        rows += [(name, value) for name, value in properties.rows if value != NOTHING]
    rows += _sources(one.sources)
    tables = [Table(f"CONTAINER {container_name(container.name)}", (), tuple(rows), wraps=True)]
    if one.resources is not None and _has_resources(one.resources):
        tables += resources(one.resources)
    if one.hugepages is not None and (one.hugepages.containers or one.hugepages.pod):
        tables += hugepages(one.hugepages)
    return tables


def _has_resources(found: Resources) -> bool:
    """Whether the container has, or may have, more than CPUs."""
    given = (found.devices, found.memory, found.claims, found.dynamic_resources)
    return any(given) or found.claims_error is not None


def _sources(sources: Sequence[FactSource]) -> list[tuple[str, str]]:
    return [(f"{one.part} from", or_nothing(one.read)) for one in sources]


def _not_known(errors: Sequence[PartError]) -> Table:
    rows = {(one.part, one.reason, one.message): None for one in errors}
    return Table("NOT KNOWN", ("PART", "REASON", "WHY"), tuple(rows), wraps=True)
