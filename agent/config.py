"""The flags of `netutil-agent` and their environment variables. A flag wins."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import NoReturn
from urllib.parse import urlsplit

from netutil.agent.device_plugin.resource_name import is_extended_resource_name
from netutil.agent.listener.unix_socket import MAX_PATH_BYTES
from netutil.agent.observability.build_info import read_build_info

_KUBELET_ROOT = "/var/lib/kubelet"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_SERVICE_VARIABLES = "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT"
# RFC 1123, as Kubernetes checks the names of nodes. It goes into a field selector.
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DEVICE_PLUGIN_SOCKET = "/netutil.sock"
_POD_SOURCES = ("kubelet", "apiserver", "pods-api", "auto")


@dataclass(frozen=True, slots=True)
class Config:
    """Values of the flags. Empty strings mean "none"."""

    socket: str
    admin_socket: str
    pod_source: str
    kubelet_url: str
    kubelet_ca: str
    kubelet_token: str
    kubelet_client_cert: str
    kubelet_client_key: str
    kubelet_verify: str
    apiserver_url: str
    apiserver_ca: str
    apiserver_token: str
    kubeconfig: str
    node_name: str
    pods_api: str
    pod_refresh: float
    pod_resources: str
    device_plugin: str
    device_plugin_dir: str
    host_root: str
    cgroup_root: str
    kubelet_root: str
    resource_claims: str
    metrics_address: str
    max_connections: int
    max_connections_per_pod: int
    max_calls_per_pod: int
    pod_cost_per_second: int
    max_streams_per_pod: int
    max_calls_per_second_per_pod: int
    max_call_burst_per_pod: int
    max_send_buffer_bytes: int
    max_send_buffer_bytes_per_pod: int
    max_header_bytes: int
    host_read_threads: int
    max_network_namespaces: int
    memory_high_watermark_percent: int
    event_loop_stall_seconds: float
    log_level: str
    log_format: str
    check: bool


def parse(argv: Sequence[str], environment: Mapping[str, str]) -> Config:  # noqa: PLR0915 - a flag each
    """Return the settings. Ends the process with one line and status 2 for an ill-formed value."""
    parser = _Parser(
        prog="netutil-agent",
        description="Answers each pod of this node about itself, over one Unix socket.",
        epilog="Each flag has an environment variable, NETUTIL_POD_SOURCE for --pod-source; a flag"
        " wins.",
        allow_abbrev=False,
    )
    node_ip = environment.get("NODE_IP") or "127.0.0.1"
    kubelet = f"https://{_bracketed(node_ip)}:10250"
    service = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT") or "443"
    apiserver = f"https://{_bracketed(service)}:{port}" if service else ""
    kubelet_root = _kubelet_root(argv, environment)

    def flag(name: str, default: object, kind: Callable[[str], object], text: str) -> None:
        value = environment.get(variable_of(name), default)
        shown = f"{text} (default: {default})" if default != "" else text
        parser.add_argument(
            f"--{name}",
            type=kind,
            default=value,
            help=shown,
            metavar=kind.__name__.removesuffix("_OR_NONE"),
        )

    flag("socket", "/run/netutil/net.sock", PATH, "the pods' socket, mode 0666")
    flag(
        "admin-socket",
        "/run/netutil-admin/admin.sock",
        PATH_OR_NONE,
        "operator socket; empty: none",
    )
    flag(
        "pod-source",
        "kubelet",
        POD_SOURCE,
        "kubelet; apiserver; pods-api (the kubelet's local Pods API); auto (pods-api where its"
        " socket exists, else kubelet); file:PATH of a PodList",
    )
    flag("kubelet-url", kubelet, URL, "the kubelet's API; NODE_IP replaces 127.0.0.1")
    flag("kubelet-ca", f"{SERVICE_ACCOUNT}/ca.crt", FILE, "CA bundle of the kubelet's certificate")
    flag("kubelet-token", f"{SERVICE_ACCOUNT}/token", FILE, "file of the bearer token; empty: none")
    flag("kubelet-client-cert", "", FILE, "client certificate file")
    flag("kubelet-client-key", "", FILE, "client key file")
    flag("kubelet-verify", "full", VERIFY, "full; ca (chain yes, host name no); none")
    flag("apiserver-url", apiserver, URL_OR_NONE, "the API server, for pods or claims from there")
    flag(
        "apiserver-ca",
        f"{SERVICE_ACCOUNT}/ca.crt",
        FILE,
        "CA bundle of the API server's certificate",
    )
    flag(
        "apiserver-token",
        f"{SERVICE_ACCOUNT}/token",
        FILE,
        "file of the bearer token for the API server",
    )
    flag(
        "kubeconfig",
        "",
        FILE_OR_NONE,
        "kubeconfig for the API server, by its current context; replaces the three flags above",
    )
    flag(
        "node-name",
        environment.get("NODE_NAME", ""),
        NODE,
        "name of this node, for pods or claims from there; else NODE_NAME of the environment",
    )
    flag(
        "pods-api",
        f"{kubelet_root}/pods-api/pods-api.sock",
        PATH,
        "socket of the kubelet's Pods API, for --pod-source pods-api and auto",
    )
    flag("pod-refresh", "10", SECONDS, "longest age of a fetched pod list while there are callers")
    flag(
        "pod-resources",
        f"{kubelet_root}/pod-resources/kubelet.sock",
        FILE,
        "PodResources socket",
    )
    flag(
        "device-plugin",
        "",
        RESOURCE,
        "extended resource with which the kubelet mounts the socket's directory in containers",
    )
    flag(
        "device-plugin-dir",
        f"{kubelet_root}/device-plugins",
        PLUGIN_DIR,
        "the kubelet's directory of device plugins, for --device-plugin",
    )
    flag("host-root", "/", DIR, "mount point of the host's /sys: DIR/sys")
    flag(
        "cgroup-root",
        "",
        CGROUP,
        "the kubelet's cgroupRoot, if neither /, nor /kubelet, nor above the agent's own cgroup",
    )
    flag(
        "kubelet-root",
        _KUBELET_ROOT,
        DIR,
        "the kubelet's --root-dir: the sockets of its APIs and the device metadata are below it",
    )
    flag(
        "resource-claims",
        "node",
        CLAIMS,
        "devices of ResourceClaims: node (device metadata of drivers below --kubelet-root);"
        " apiserver (that, and the status of claims at the API server); off",
    )
    flag("metrics-address", "127.0.0.1:9464", ADDRESS, "/metrics, /healthz, /readyz; empty: none")
    flag("max-connections", "4096", COUNT, "open connections in total")
    flag("max-connections-per-pod", "64", COUNT, "open connections of one pod")
    flag("max-calls-per-pod", "256", COUNT, "calls in flight of one pod")
    flag(
        "pod-cost-per-second",
        "10000",
        COUNT,
        "cost of one pod beside its calls, in units of one empty HTTP/2 frame",
    )
    flag("max-streams-per-pod", "128", COUNT, "streams of one pod: Watch, health, reflection")
    flag("max-calls-per-second-per-pod", "1000", COUNT, "calls of one pod in a second")
    flag("max-call-burst-per-pod", "2000", COUNT, "calls of one pod at once after a pause")
    flag("max-send-buffer-bytes", "67108864", COUNT, "unread bytes of large responses, of all pods")
    flag(
        "max-send-buffer-bytes-per-pod",
        "8388608",
        COUNT,
        "unread bytes of large responses, of one pod",
    )
    flag("max-header-bytes", "8192", COUNT, "metadata of one call, decoded, and 32 for each entry")
    flag(
        "host-read-threads",
        "256",
        COUNT,
        "threads for reads that a workload can delay, one for each pod",
    )
    flag("max-network-namespaces", "1024", COUNT, "cached network namespaces")
    flag(
        "memory-high-watermark-percent",
        "90",
        PERCENT,
        "share of the memory limit beyond which new connections and streams are rejected",
    )
    flag(
        "event-loop-stall-seconds",
        "5",
        SECONDS,
        "duration of an event loop iteration that counts as a stall",
    )
    flag("log-level", "info", LEVEL, "debug, info, warning or error")
    flag("log-format", "text", FORMAT, "text or json")
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
    found = vars(parser.parse_args(argv))
    if bool(found["kubelet_client_cert"]) != bool(found["kubelet_client_key"]):
        parser.error("--kubelet-client-cert and --kubelet-client-key go together")
    if found["device_plugin"] and _is_of_others(os.path.dirname(found["socket"])):
        parser.error(
            "--device-plugin mounts the directory of --socket in pods: give --socket a directory of"
            " its own, as /run/netutil/net.sock has"
        )
    kubeconfig = found["kubeconfig"]
    for flag_name in ("pod-source", "resource-claims"):
        if found[flag_name.replace("-", "_")] != "apiserver":
            continue
        for name, meant in (("apiserver-url", _SERVICE_VARIABLES), ("node-name", "NODE_NAME")):
            is_given = found[name.replace("-", "_")] or (name == "apiserver-url" and kubeconfig)
            if not is_given:
                parser.error(f"--{flag_name} apiserver needs --{name}, or {meant} to be set")
    return Config(**found)


def variable_of(flag_name: str) -> str:
    """Return the environment variable of a flag."""
    return "NETUTIL_" + flag_name.upper().replace("-", "_")


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


def _choice(name: str, *accepted: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in accepted:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(accepted)}")
        return text

    check.__name__ = name
    return check


def FILE(text: str) -> str:  # noqa: N802 - argparse shows the name
    """The path of a file, or empty."""
    return text


def PATH(text: str) -> str:  # noqa: N802
    """An absolute path that fits a Unix socket address."""
    if not text.startswith("/") or len(text.encode()) > MAX_PATH_BYTES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an absolute path of at most {MAX_PATH_BYTES} bytes"
        )
    return text


def PATH_OR_NONE(text: str) -> str:  # noqa: N802
    """As PATH, or empty."""
    return PATH(text) if text else ""


def DIR(text: str) -> str:  # noqa: N802
    """An absolute directory."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return text


def FILE_OR_NONE(text: str) -> str:  # noqa: N802
    """An absolute path of a file, or empty."""
    return DIR(text) if text else ""


def RESOURCE(text: str) -> str:  # noqa: N802
    """An extended resource's name, or empty."""
    if text and not is_extended_resource_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no extended resource such as example.com/netutil, nor empty"
        )
    return text


def PLUGIN_DIR(text: str) -> str:  # noqa: N802
    """An absolute directory in which the path of a socket fits a Unix socket address."""
    PATH(DIR(text).rstrip("/") + _DEVICE_PLUGIN_SOCKET)
    return text


def CGROUP(text: str) -> str:  # noqa: N802
    """An absolute path in the cgroup file systems, without "." and "..", or empty."""
    above, *segments = text.rstrip("/").split("/")
    if above or any(segment in ("", ".", "..") for segment in segments):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path of cgroups, nor empty")
    return text


def URL(text: str) -> str:  # noqa: N802
    """An http or https address."""
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// address")
    return text


def URL_OR_NONE(text: str) -> str:  # noqa: N802
    """An https address, or empty: a token goes there."""
    try:
        parts = urlsplit(text)
        named = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        named = False
    if text and not named:
        raise argparse.ArgumentTypeError(f"{text!r} is not https://HOST:PORT, nor empty")
    return text


def NODE(text: str) -> str:  # noqa: N802
    """A node's name, or empty."""
    if text and not _NODE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a node, nor empty")
    return text


def POD_SOURCE(text: str) -> str:  # noqa: N802
    """A source of the pod list."""
    if text not in _POD_SOURCES and not text.startswith("file:/"):
        accepted = f"{', '.join(_POD_SOURCES)} or file:PATH (absolute)"
        raise argparse.ArgumentTypeError(f"{text!r} is not {accepted}")
    return text


def SECONDS(text: str) -> float:  # noqa: N802
    """A positive, finite number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def COUNT(text: str) -> int:  # noqa: N802
    """A positive whole number."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def PERCENT(text: str) -> int:  # noqa: N802
    """A whole number from 1 to 100."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100")
    return int(text)


def ADDRESS(text: str) -> str:  # noqa: N802
    """HOST:PORT, or empty."""
    host, colon, port = text.rpartition(":")
    if text and not (host and colon and port.isascii() and port.isdigit() and int(port) < 65536):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, nor empty")
    return text


VERIFY = _choice("MODE", "full", "ca", "none")
CLAIMS = _choice("MODE", "node", "apiserver", "off")
LEVEL = _choice("LEVEL", "debug", "info", "warning", "error")
FORMAT = _choice("FORMAT", "text", "json")
