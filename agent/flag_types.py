"""The types of the flags: each checks a text, and its name is the placeholder in `--help`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from netutil.agent.device_plugin.resource_name import is_extended_resource_name
from netutil.agent.listener.unix_socket import MAX_PATH_BYTES

# RFC 1123, as Kubernetes checks the names of nodes. The name goes into a field selector.
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DEVICE_PLUGIN_SOCKET = "/netutil.sock"
_POD_SOURCES = ("kubelet", "apiserver", "pods-api", "auto")


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
