"""The current context of a kubeconfig, checked. Pure.

client-go, `tools/clientcmd/api/v1/types.go`. The package `kubernetes` finds the context, its
cluster and its user. The agent checks their types, which the package does not, uses a token, a
client certificate or an exec plugin, and refuses what it must not do: unverified TLS, a proxy, the
providers of logins that Kubernetes has removed, a plugin that needs a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml
from kubernetes.config import ConfigException
from kubernetes.config.kube_config import ConfigNode
from netutil.agent.pods.http.login_files import shown


class Cluster(msgspec.Struct, frozen=True, rename="kebab", gc=False):
    """An entry of `clusters`."""

    server: str
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""


class Variable(msgspec.Struct, frozen=True, gc=False):
    """A variable of an exec plugin's environment."""

    name: str
    value: str


class Exec(msgspec.Struct, frozen=True, rename="camel"):
    """How a credential plugin is run."""

    api_version: str
    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    provide_cluster_info: bool = False
    interactive_mode: str = ""


class User(msgspec.Struct, frozen=True, rename="kebab"):
    """An entry of `users`."""

    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    exec: Exec | None = None
    auth_provider: object = None
    username: str = ""

    @property
    def has_certificate(self) -> bool:
        """Return whether there is a certificate with its key."""
        certificate = self.client_certificate or self.client_certificate_data
        return bool(certificate and (self.client_key or self.client_key_data))

    @property
    def is_anonymous(self) -> bool:
        """Return whether there is nothing to log in with."""
        return not (self.token or self.token_file or self.exec or self.has_certificate)


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """The cluster and the user of the current context; `raw_cluster` is as it was written."""

    cluster: Cluster
    user: User
    raw_cluster: dict[str, Any]


def selected(content: bytes, unusable: Callable[[str], Exception]) -> Kubeconfig:
    """Return the current context of a kubeconfig in JSON or YAML.

    Raises what `unusable` makes of a reason, which quotes nothing of the file but the names of
    entries: others may be secrets.
    """
    try:
        document = ConfigNode("kubeconfig", yaml.safe_load(content))
        context = _named(document, "contexts", document["current-context"])
        raw_cluster: dict[str, Any] = _named(document, "clusters", context["cluster"]).value
        raw_user = _named(document, "users", context["user"]).value
        cluster, user = msgspec.convert(raw_cluster, Cluster), msgspec.convert(raw_user, User)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise unusable(f"it is no YAML: {type(error).__name__}{where}") from None
    except (ConfigException, msgspec.ValidationError) as error:
        raise unusable(f"its current-context cannot be used: {shown(str(error))}") from None
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # A date that is none, an empty !!int, brackets without end; a list where names belong.
        raise unusable(f"it is no kubeconfig: {type(error).__name__}") from None
    if refusal := _refusal(cluster, user):
        raise unusable(refusal)
    return Kubeconfig(cluster, user, raw_cluster)


def _refusal(cluster: Cluster, user: User) -> str:
    """Return why the agent does not use a context, "" if it does."""
    if cluster.insecure_skip_tls_verify:
        return "it has insecure-skip-tls-verify, and the agent always verifies the API server"
    if cluster.proxy_url:
        return "it has a proxy-url, and the agent uses no proxy"
    if not (cluster.certificate_authority or cluster.certificate_authority_data):
        return "its cluster has no certificate-authority"
    if user.auth_provider is not None:
        return "its user has an auth-provider, which Kubernetes 1.26 has removed: use exec"
    if user.exec is not None and user.exec.interactive_mode == "Always":
        return "its exec plugin needs a terminal (interactiveMode: Always)"
    if user.is_anonymous:
        return "its user has no token, no client certificate with a key, and no exec plugin"
    return ""


def _named(document: ConfigNode, kind: str, name: object) -> ConfigNode:
    """Return the entry of a list that has a name. Raises `ConfigException` if there is not one."""
    found: ConfigNode = document[kind].get_with_name(name)[kind.removesuffix("s")]
    return found


# msgspec examines a type at its first use, and crashes if two threads do so at once (0.22: SIGSEGV
# in _core): so each type is examined here.
_EXAMINED = tuple(map(msgspec.json.Decoder, (Cluster, User)))
