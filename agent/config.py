"""The configuration of `netutil-agent`: its flags and their environment variables. A flag wins.

A field of a group is a flag. The groups are what the components are built from.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any, NoReturn, TypeVar, get_type_hints

from netutil.agent.flag_types import (
    ADDRESS,
    CGROUP,
    CLAIMS,
    COUNT,
    DIR,
    FILE,
    FILE_OR_NONE,
    FORMAT,
    LEVEL,
    NODE,
    PATH,
    PATH_OR_NONE,
    PERCENT,
    PLUGIN_DIR,
    POD_SOURCE,
    RESOURCE,
    SECONDS,
    URL,
    URL_OR_NONE,
    VERIFY,
)
from netutil.agent.observability.build_info import read_build_info

T = TypeVar("T")
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_KUBELET_ROOT = "/var/lib/kubelet"
_SERVICE_VARIABLES = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What defaults of flags follow from. `kubelet_root` has no slash at its end."""

    environment: Mapping[str, str]
    kubelet_root: str


_Default = str | Callable[[_Surroundings], str]


@dataclass(frozen=True, slots=True)
class _Flag:
    name: str
    default: _Default
    kind: Callable[[str], object]
    text: str


def _flag(name: str, default: _Default, kind: Callable[[str], object], text: str) -> Any:
    """Return the field that a flag sets; an empty default means "none"."""
    return field(metadata={"flag": _Flag(name, default, kind, text)})


def _kubelet_url(found: _Surroundings) -> str:
    return f"https://{_bracketed(found.environment.get('NODE_IP') or '127.0.0.1')}:10250"


def _apiserver_url(found: _Surroundings) -> str:
    service = found.environment.get("KUBERNETES_SERVICE_HOST", "")
    port = found.environment.get("KUBERNETES_SERVICE_PORT") or "443"
    return f"https://{_bracketed(service)}:{port}" if service else ""


def _node_name(found: _Surroundings) -> str:
    return found.environment.get("NODE_NAME", "")


def _below_kubelet_root(path: str) -> _Default:
    return lambda found: f"{found.kubelet_root}/{path}"


@dataclass(frozen=True, slots=True)
class Sockets:
    """The Unix sockets that the agent serves."""

    pods: str = _flag("socket", "/run/netutil/net.sock", PATH, "Unix socket for pods, mode 0666")
    admin: str = _flag(
        "admin-socket",
        "/run/netutil-admin/admin.sock",
        PATH_OR_NONE,
        "Unix socket for operators, mode 0600; empty: none",
    )


@dataclass(frozen=True, slots=True)
class ApiServer:
    """Where the API server is, and how the agent logs in there."""

    url: str = _flag(
        "apiserver-url",
        _apiserver_url,
        URL_OR_NONE,
        "URL of the API server, for --pod-source and --resource-claims apiserver",
    )
    ca: str = _flag(
        "apiserver-ca",
        f"{SERVICE_ACCOUNT}/ca.crt",
        FILE,
        "CA bundle of the API server's certificate",
    )
    token: str = _flag(
        "apiserver-token",
        f"{SERVICE_ACCOUNT}/token",
        FILE,
        "file of the bearer token for the API server",
    )
    kubeconfig: str = _flag(
        "kubeconfig",
        "",
        FILE_OR_NONE,
        "kubeconfig for the API server (current context), instead of the --apiserver flags",
    )


@dataclass(frozen=True, slots=True)
class PodSources:
    """Where the pod list comes from; the kubelet's sources are in `Kubelet`."""

    apiserver: ApiServer
    kind: str = _flag(
        "pod-source",
        "kubelet",
        POD_SOURCE,
        "source of the pod list: kubelet; apiserver; pods-api (the kubelet's local Pods API);"
        " auto (pods-api if its socket exists, else kubelet); file:PATH (a PodList)",
    )
    refresh_seconds: float = _flag(
        "pod-refresh",
        "10",
        SECONDS,
        "maximum age of the pod list while pods call",
    )


@dataclass(frozen=True, slots=True)
class KubeletApi:
    """Where the kubelet's HTTP API is, and how the agent logs in there."""

    url: str = _flag(
        "kubelet-url",
        _kubelet_url,
        URL,
        "URL of the kubelet's API; the variable NODE_IP replaces 127.0.0.1",
    )
    ca: str = _flag(
        "kubelet-ca", f"{SERVICE_ACCOUNT}/ca.crt", FILE, "CA bundle of the kubelet's certificate"
    )
    token: str = _flag(
        "kubelet-token",
        f"{SERVICE_ACCOUNT}/token",
        FILE,
        "file of the bearer token for the kubelet; empty: none",
    )
    client_cert: str = _flag(
        "kubelet-client-cert", "", FILE, "file of the client certificate for the kubelet"
    )
    client_key: str = _flag("kubelet-client-key", "", FILE, "file of the key of that certificate")
    verify: str = _flag(
        "kubelet-verify",
        "full",
        VERIFY,
        "check of the kubelet's certificate: full; ca (chain, not host name); none",
    )


@dataclass(frozen=True, slots=True)
class Kubelet:
    """The kubelet of this node: its APIs, and what it has below its root directory."""

    api: KubeletApi
    root: str = _flag(
        "kubelet-root",
        _KUBELET_ROOT,
        DIR,
        "the kubelet's --root-dir, which has the sockets of its APIs and the device metadata",
    )
    pods_api: str = _flag(
        "pods-api",
        _below_kubelet_root("pods-api/pods-api.sock"),
        PATH,
        "socket of the kubelet's Pods API, for --pod-source pods-api and auto",
    )
    pod_resources: str = _flag(
        "pod-resources",
        _below_kubelet_root("pod-resources/kubelet.sock"),
        FILE,
        "socket of the kubelet's PodResources API",
    )
    resource_claims: str = _flag(
        "resource-claims",
        "node",
        CLAIMS,
        "source of the devices of ResourceClaims (DRA): node (device metadata that drivers write"
        " below --kubelet-root); apiserver (also the claims at the API server); off",
    )
    device_plugin: str = _flag(
        "device-plugin",
        "",
        RESOURCE,
        "serve a device plugin for this extended resource, which mounts the socket's directory in"
        " containers",
    )
    device_plugin_dir: str = _flag(
        "device-plugin-dir",
        _below_kubelet_root("device-plugins"),
        PLUGIN_DIR,
        "the kubelet's directory of device plugin sockets, for --device-plugin",
    )


@dataclass(frozen=True, slots=True)
class Host:
    """This node: its name, and where its file systems are."""

    node_name: str = _flag(
        "node-name",
        _node_name,
        NODE,
        "name of this node, for requests to the API server; taken from NODE_NAME if not given",
    )
    root: str = _flag("host-root", "/", DIR, "directory whose sys is a mount of the host's /sys")
    cgroup_root: str = _flag(
        "cgroup-root",
        "",
        CGROUP,
        "the kubelet's cgroupRoot; only needed if the root is neither / nor /kubelet, and not"
        " above the agent's own cgroup",
    )


@dataclass(frozen=True, slots=True)
class Connections:
    """Limits of open connections."""

    total: int = _flag("max-connections", "4096", COUNT, "open connections in total")
    per_pod: int = _flag("max-connections-per-pod", "64", COUNT, "open connections of one pod")


@dataclass(frozen=True, slots=True)
class Calls:
    """Limits of the calls of one pod."""

    in_flight: int = _flag("max-calls-per-pod", "256", COUNT, "calls in flight of one pod")
    streams: int = _flag(
        "max-streams-per-pod",
        "128",
        COUNT,
        "open streams of one pod: Watch, health, reflection",
    )
    per_second: int = _flag(
        "max-calls-per-second-per-pod", "1000", COUNT, "calls of one pod per second"
    )
    burst: int = _flag(
        "max-call-burst-per-pod", "2000", COUNT, "burst of calls of one pod after a pause"
    )
    cost_per_second: int = _flag(
        "pod-cost-per-second",
        "10000",
        COUNT,
        "cost of one pod per second beside its calls; an empty HTTP/2 frame costs 1",
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Limits of bytes that the agent holds for calls."""

    send_buffer_bytes: int = _flag(
        "max-send-buffer-bytes",
        "67108864",
        COUNT,
        "bytes of large responses that pods have not read, in total",
    )
    send_buffer_bytes_per_pod: int = _flag(
        "max-send-buffer-bytes-per-pod",
        "8388608",
        COUNT,
        "bytes of large responses that one pod has not read",
    )
    header_bytes: int = _flag(
        "max-header-bytes",
        "8192",
        COUNT,
        "bytes of the metadata of one call, decoded, plus 32 for each field",
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Each is a sample of the metric `netutil_limit`."""

    connections: Connections
    calls: Calls
    sizes: Sizes
    host_read_threads: int = _flag(
        "host-read-threads",
        "256",
        COUNT,
        "threads for reads that a workload can delay; a pod uses one at a time",
    )
    network_namespaces: int = _flag(
        "max-network-namespaces", "1024", COUNT, "cached network namespaces"
    )


@dataclass(frozen=True, slots=True)
class Observability:
    """What the agent reports about itself."""

    metrics_address: str = _flag(
        "metrics-address",
        "127.0.0.1:9464",
        ADDRESS,
        "HOST:PORT of /metrics, /healthz and /readyz; empty: none",
    )
    memory_high_watermark_percent: int = _flag(
        "memory-high-watermark-percent",
        "90",
        PERCENT,
        "share of the memory limit beyond which new connections and streams are rejected",
    )
    event_loop_stall_seconds: float = _flag(
        "event-loop-stall-seconds",
        "5",
        SECONDS,
        "duration of an event loop iteration that counts as a stall",
    )
    log_level: str = _flag("log-level", "info", LEVEL, "debug, info, warning or error")
    log_format: str = _flag("log-format", "text", FORMAT, "text or json")


@dataclass(frozen=True, slots=True)
class Config:
    """Values of the flags. Empty strings mean "none". `check` asks for a check of the health."""

    sockets: Sockets
    pod_source: PodSources
    kubelet: Kubelet
    host: Host
    limits: Limits
    observability: Observability
    check: bool


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the settings. Ends the process with one line and status 2 for an ill-formed value."""
    parser = _Parser(
        prog="netutil-agent",
        description="The netutil agent of one node. Answers gRPC calls on a Unix socket: each pod"
        " gets facts about itself. Runs as root in a DaemonSet.",
        epilog="Each flag has an environment variable, as NETUTIL_POD_SOURCE for --pod-source. The"
        " flag overrides the variable.",
        allow_abbrev=False,
    )
    surroundings = _Surroundings(environment, _kubelet_root(argv, environment))
    for name, kind, _ in _members(Config):
        if is_dataclass(kind):
            group = parser.add_argument_group(name.replace("_", " "))
            for flag in _flags_of(kind):
                _add(group, flag, surroundings)
    parser.add_argument(
        "--check", action="store_true", help="check the health of the running agent; exit 0 or 1"
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print the versions of agent, Python and grpcio",
    )
    config = _build(Config, vars(parser.parse_args(argv)))
    _ensure_consistent(config, parser)
    return config


def flag_values(group: object) -> Iterator[tuple[str, object]]:
    """Return the names and values of the flags that set a group of `Config`, or all of it."""
    for name, kind, flag in _members(type(group)):
        value = getattr(group, name)
        if is_dataclass(kind):
            yield from flag_values(value)
        else:
            yield name if flag is None else flag.name, value


def variable_of(flag_name: str) -> str:
    """Return the environment variable of a flag."""
    return "NETUTIL_" + flag_name.upper().replace("-", "_")


def _members(group: Any) -> Iterator[tuple[str, type, _Flag | None]]:
    """Return the fields of a group: names, types, and the flags that set them."""
    types = get_type_hints(group)
    for each in fields(group):
        yield each.name, types[each.name], each.metadata.get("flag")


def _flags_of(group: Any) -> Iterator[_Flag]:
    for _, kind, flag in _members(group):
        if flag is not None:
            yield flag
        elif is_dataclass(kind):
            yield from _flags_of(kind)


def _build(group: type[T], found: Mapping[str, Any]) -> T:
    """Return a group of the values that argparse found."""
    values: dict[str, Any] = {}
    for name, kind, flag in _members(group):
        if is_dataclass(kind):
            values[name] = _build(kind, found)
        else:
            values[name] = found[name if flag is None else flag.name.replace("-", "_")]
    return group(**values)


def _add(group: argparse._ArgumentGroup, flag: _Flag, found: _Surroundings) -> None:
    default = flag.default if isinstance(flag.default, str) else flag.default(found)
    group.add_argument(
        f"--{flag.name}",
        type=flag.kind,
        default=found.environment.get(variable_of(flag.name), default),
        help=f"{flag.text} (default: {default})" if default else flag.text,
        metavar=flag.kind.__name__.removesuffix("_OR_NONE"),
    )


def _ensure_consistent(config: Config, parser: argparse.ArgumentParser) -> None:
    """End the process as `parse` does where flags contradict each other, or one lacks another."""
    if bool(config.kubelet.api.client_cert) != bool(config.kubelet.api.client_key):
        parser.error("--kubelet-client-cert and --kubelet-client-key go together")
    if config.kubelet.device_plugin and _is_of_others(os.path.dirname(config.sockets.pods)):
        parser.error(
            "--device-plugin mounts the directory of --socket in pods: give --socket a directory of"
            " its own, as /run/netutil/net.sock has"
        )
    apiserver = config.pod_source.apiserver
    needed = (
        ("apiserver-url", _SERVICE_VARIABLES, apiserver.url or apiserver.kubeconfig),
        ("node-name", "NODE_NAME", config.host.node_name),
    )
    for flag_name, chosen in (
        ("pod-source", config.pod_source.kind),
        ("resource-claims", config.kubelet.resource_claims),
    ):
        for name, meant, given in needed:
            if chosen == "apiserver" and not given:
                parser.error(f"--{flag_name} apiserver needs --{name}, or {meant} to be set")


def _kubelet_root(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return --kubelet-root without a slash at its end: defaults of other flags are below it."""
    parser = _Parser(prog="netutil-agent", add_help=False, allow_abbrev=False)
    default = environment.get(variable_of("kubelet-root"), _KUBELET_ROOT)
    parser.add_argument("--kubelet-root", type=DIR, default=default, metavar=DIR.__name__)
    found, _ = parser.parse_known_args(argv)
    root: str = found.kubelet_root
    return root.rstrip("/")


def _is_of_others(directory: str) -> bool:
    """Return whether a directory is the root, or directly below it or /var, as /run and /var/run.

    Files of other programs are in these: the sockets of container runtimes, for example.
    """
    path = os.path.normpath("/" + directory.lstrip("/"))
    return os.path.dirname(path) in ("/", "/var")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"netutil-agent: {message}; see netutil-agent --help\n")


class _Version(argparse.Action):
    """Prints the versions and ends the process with status 0; 1 if a package is missing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        try:
            print(f"netutil-agent {read_build_info()}")
        except PackageNotFoundError as error:
            missing = f"the Python package {error.name} is missing: install kube-netutil[agent]"
            parser.exit(1, f"netutil-agent: {missing}\n")
        parser.exit(0)
