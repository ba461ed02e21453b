"""The exec plugin of a kubeconfig, run by the package `kubernetes` within limits.

Kubernetes, "client-go credential plugins": a program that prints an ExecCredential.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from kubernetes.config import ConfigException
from kubernetes.config.dateutil import parse_rfc3339
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.kube_config import ConfigNode
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http import exec_limit
from netutil.agent.pods.http.kubeconfig import Exec
from netutil.agent.pods.http.login_files import shown
from netutil.agent.pods.sources.base import Signature, unavailable

MAX_PLUGIN_BYTES = 256 * 1024
"""The most that an exec plugin may write."""
_EXPIRY_MARGIN = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class PluginRun:
    """Which file names the plugin, as which cluster of it, and how long the plugin may take."""

    kubeconfig: str
    directory: str
    cluster: dict[str, Any]
    seconds: float


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """What an exec plugin answered for a file with that signature."""

    signature: Signature
    token: str
    certificate: str
    key: str
    expires_at: datetime | None

    def is_usable(self, found: Signature, now: datetime) -> bool:
        """Return whether the file is the same and the answer has not expired, nor soon will."""
        if self.expires_at is not None and now + _EXPIRY_MARGIN >= self.expires_at:
            return False
        return self.signature == found


class _Status(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """ExecCredentialStatus of client.authentication.k8s.io/v1."""

    token: str = ""
    certificate: str = msgspec.field(name="clientCertificateData", default="")
    key: str = msgspec.field(name="clientKeyData", default="")
    expiration_timestamp: str | None = None


def run_plugin(plugin: Exec, run: PluginRun, found: Signature) -> Credential:
    """Return what the plugin answers for a kubeconfig of that signature.

    Blocks, at most for the time of the run. Raises `Unavailable`.
    """
    limits = (str(run.seconds), str(MAX_PLUGIN_BYTES))
    entry: dict[str, Any] = {
        "apiVersion": plugin.api_version,
        "command": sys.executable,
        "args": [
            "-I",
            "-S",
            exec_limit.__file__,
            *limits,
            plugin.command,
            *(plugin.args or ()),
        ],
        "env": [{"name": one.name, "value": one.value} for one in plugin.env or ()],
        "provideClusterInfo": plugin.provide_cluster_info,
    }
    cluster = ConfigNode("cluster", run.cluster)
    try:
        # Not by its loader, which logs a failure and goes on without a login.
        answer = ExecProvider(ConfigNode("exec", entry), run.directory, cluster).run()
        status = msgspec.convert(answer, _Status)
        expires_at = None
        if status.expiration_timestamp:
            expires_at = parse_rfc3339(status.expiration_timestamp).astimezone(UTC)
    except (ConfigException, OSError) as error:
        raise _failed(run.kubeconfig, shown(str(error).removeprefix("exec: "))) from None
    except LookupError:
        raise _failed(run.kubeconfig, "an extension of the cluster lacks its fields") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        # Not in its own words, which may quote the answer.
        why = f"its answer is no ExecCredential: {type(error).__name__}"
        raise _failed(run.kubeconfig, why) from None
    if not status.token and not (status.certificate and status.key):
        why = "its answer has neither a token nor a client certificate and its key"
        raise _failed(run.kubeconfig, why)
    return Credential(found, status.token, status.certificate, status.key, expires_at)


def _failed(kubeconfig: str, why: str) -> Unavailable:
    return unavailable(
        f"The exec plugin of --kubeconfig failed: {why}.",
        kubeconfig,
        "Run the command of the user's exec entry by hand, as root and with no terminal.",
    )


# msgspec examines a type at its first use, and crashes if two threads do so at once (0.22: SIGSEGV
# in _core): so each type is examined here.
_EXAMINED = tuple(map(msgspec.json.Decoder, (_Status,)))
