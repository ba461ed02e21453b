"""Logins at the API server by the package `kubernetes`: a service account or a kubeconfig.

A login gives the package's `Configuration` for each request, so that what was rotated is used
from the next request on. The agent adds to the package what it lacks: limits of size and time,
complete verification always, no proxy, and errors that name the flag and never quote a secret.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import (
    SERVICE_HOST_ENV_NAME,
    SERVICE_PORT_ENV_NAME,
    InClusterConfigLoader,
)
from kubernetes.config.kube_config import KubeConfigLoader
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http.errors import API_SERVER, KUBECONFIG_SERVER, ServerMessages
from netutil.agent.pods.http.exec_plugin import Credential, PluginRun, run_plugin
from netutil.agent.pods.http.kubeconfig import Exec, Kubeconfig, User, selected
from netutil.agent.pods.http.login_files import (
    MAX_FILE_BYTES,
    MAX_TOKEN_BYTES,
    Named,
    ensure_usable,
    read_kubeconfig,
    shown,
    unnamed,
    unusable_file,
)
from netutil.agent.pods.sources.base import Signature, unavailable

_BEARER = "BearerToken"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Where the API server is, and the files of the service account, as a pod has them."""

    url: str
    ca_file: str
    token_file: str


@dataclass(frozen=True, slots=True)
class KubeconfigFile:
    """A kubeconfig, of which the current context is used, and the time for its exec plugin."""

    path: str
    plugin_seconds: float = 10.0


class Login(Protocol):
    """How the agent logs in. Used by more than one thread."""

    @property
    def messages(self) -> ServerMessages:
        """Return the words of errors, which name the flags."""

    def describe(self) -> str:
        """Return the address, or the file that holds it."""

    def configuration(self) -> AbstractContextManager[Configuration]:
        """Within the block, return what the package connects with. Blocks. Raises `Unavailable`."""

    def rejected(self) -> None:
        """Take note that the API server has answered 401: use no credential again."""


def open_login(settings: ServiceAccount | KubeconfigFile) -> Login:
    """Return the login. Raises ValueError for a URL that is not https, or names no host."""
    if isinstance(settings, ServiceAccount):
        return ServiceAccountLogin(settings)
    return KubeconfigLogin(settings)


class ServiceAccountLogin:
    """The service account of a pod: Kubernetes, "Accessing the Kubernetes API from a Pod"."""

    messages = API_SERVER

    def __init__(self, account: ServiceAccount) -> None:
        """Raise ValueError for a URL that is not https, or names no host."""
        self._account = account
        self._url = _address(account.url)
        if self._url is None:
            raise ValueError("the API server's URL must be https://HOST:PORT")

    def describe(self) -> str:
        """Return the address."""
        return self._url or ""

    @contextmanager
    def configuration(self) -> Iterator[Configuration]:
        """Read both files now: a projected token is rotated about once an hour."""
        account, parts = self._account, urlsplit(self.describe())
        token_file = Named("--apiserver-token", account.token_file)
        ensure_usable(token_file, MAX_TOKEN_BYTES)
        ca_file = Named("--apiserver-ca", account.ca_file)
        ensure_usable(ca_file, MAX_FILE_BYTES)
        # The package's own refresh reads a token once a minute, and shows an old one until then.
        loader = InClusterConfigLoader(
            token_filename=account.token_file,
            cert_filename=account.ca_file,
            try_refresh_token=False,
            environ={
                SERVICE_HOST_ENV_NAME: parts.hostname,
                SERVICE_PORT_ENV_NAME: str(parts.port or 443),
            },
        )
        configuration = _direct()
        _load(loader, configuration, account.token_file, "--apiserver-token and --apiserver-ca")
        configuration.host = self.describe()  # with its path, which the loader does not know
        _clean_token(configuration, token_file)
        yield configuration

    def rejected(self) -> None:
        """Do nothing: the token is read for each request."""


class KubeconfigLogin:
    """The current context of a kubeconfig: token, client certificate or exec plugin.

    Kubernetes, "Organizing Cluster Access Using kubeconfig Files". The file is read for each
    request. The answer of an exec plugin is kept until it expires, the API server rejects it, or
    the file changes.
    """

    messages = KUBECONFIG_SERVER

    def __init__(
        self,
        settings: KubeconfigFile,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._file = Named("--kubeconfig", settings.path)
        self._directory = os.path.dirname(os.path.abspath(settings.path))
        self._now = now
        self._lock = threading.Lock()  # held while a plugin runs: the others wait for its answer
        self._kept: Credential | None = None

    def describe(self) -> str:
        """Return the path."""
        return self._settings.path

    @contextmanager
    def configuration(self) -> Iterator[Configuration]:
        """Read the file, and run its exec plugin if there is one and no answer is kept."""
        content, found_signature = read_kubeconfig(self._file)
        config = selected(content, self._unusable)
        host = _address(config.cluster.server)
        if host is None:
            raise self._unusable("its server is not https://HOST:PORT")
        configuration = _direct()
        with ExitStack() as files:
            user = self._certificates(config.user, files)
            # A token of the file counts before a plugin, as for kubectl and the package.
            if config.user.exec is not None and not user.keys() & {"token", "tokenFile"}:
                user = self._from_plugin(config.user.exec, config, found_signature, files)
            self._load(config, user, files, configuration)
            configuration.host = host
            yield configuration

    def rejected(self) -> None:
        """Forget the answer of the exec plugin."""
        with self._lock:
            self._kept = None

    def _load(
        self,
        config: Kubeconfig,
        user: dict[str, str],
        files: ExitStack,
        configuration: Configuration,
    ) -> None:
        """Let the package load what is left of the kubeconfig: files and a token."""
        cluster = {"server": config.cluster.server}
        if config.cluster.tls_server_name:
            cluster["tls-server-name"] = config.cluster.tls_server_name
        if config.cluster.certificate_authority_data:
            data = self._decoded("certificate-authority-data", config.cluster)
            cluster["certificate-authority"] = unnamed(data, files, self._unusable)
        elif config.cluster.certificate_authority:
            cluster["certificate-authority"] = config.cluster.certificate_authority
        for entry, most_bytes in (
            (cluster.get("certificate-authority"), MAX_FILE_BYTES),
            (user.get("client-certificate"), MAX_FILE_BYTES),
            (user.get("client-key"), MAX_FILE_BYTES),
            (user.get("tokenFile"), MAX_TOKEN_BYTES),
        ):
            if entry is not None:
                path = os.path.join(self._directory, entry)
                ensure_usable(Named("--kubeconfig", path), most_bytes)
        document = {
            "current-context": "agent",
            "contexts": [{"name": "agent", "context": {"cluster": "agent", "user": "agent"}}],
            "clusters": [{"name": "agent", "cluster": cluster}],
            "users": [{"name": "agent", "user": user}],
        }
        loader = KubeConfigLoader(document, config_base_path=self._directory)
        _load(loader, configuration, self._settings.path, "--kubeconfig")
        # What the loader sets here only puts its token back as it was read.
        configuration.refresh_api_key_hook = None
        if _BEARER in configuration.api_key:
            _clean_token(configuration, self._file)

    def _certificates(self, user: User, files: ExitStack) -> dict[str, str]:
        """Return the user as the package reads it; what is data becomes a file without a name."""
        found = {}
        if user.token:
            found["token"] = user.token
        elif user.token_file:
            found["tokenFile"] = user.token_file
        for kind in ("client-certificate", "client-key"):
            field = kind.replace("-", "_")
            if getattr(user, f"{field}_data"):
                data = self._decoded(f"{kind}-data", user)
                found[kind] = unnamed(data, files, self._unusable)
            elif getattr(user, field):
                found[kind] = getattr(user, field)
        return found

    def _from_plugin(
        self, plugin: Exec, config: Kubeconfig, found_signature: Signature, files: ExitStack
    ) -> dict[str, str]:
        """Return the user that the exec plugin names: client authentication, "v1"."""
        with self._lock:
            kept = self._kept
            if kept is None or not kept.is_usable(found_signature, self._now()):
                kept = self._kept = run_plugin(
                    plugin,
                    PluginRun(
                        self._settings.path,
                        self._directory,
                        config.raw_cluster,
                        self._settings.plugin_seconds,
                    ),
                    found_signature,
                )
        user = {"token": kept.token} if kept.token else {}
        if kept.certificate:
            certificate, key = kept.certificate.encode(), kept.key.encode()
            user["client-certificate"] = unnamed(certificate, files, self._unusable)
            user["client-key"] = unnamed(key, files, self._unusable)
        return user

    def _decoded(self, field: str, holder: object) -> bytes:
        try:
            data = "".join(getattr(holder, field.replace("-", "_")).split())
            return base64.b64decode(data, validate=True)
        except ValueError:  # binascii.Error is one
            raise self._unusable(f"its {field} is no base64") from None

    def _unusable(self, why: str) -> Unavailable:
        return unusable_file(self._file, why)


def _direct() -> Configuration:
    """Return a configuration that uses no proxy of the environment, and never retries."""
    configuration = Configuration(retries=False, connection_pool_maxsize=1, proxy="", no_proxy="*")
    configuration.verify_ssl = True
    return configuration


def _load(loader: Any, configuration: Configuration, read: str, flags: str) -> None:
    try:
        loader.load_and_set(configuration)
    except (ConfigException, OSError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise unavailable(
            f"The agent cannot log in at the API server: {shown(why)}.", read, f"Look at {flags}."
        ) from None
    except ValueError as error:  # a file that is no UTF-8
        why = type(error).__name__
        raise unavailable(
            f"The agent cannot log in at the API server: {why}.", read, f"Look at {flags}."
        ) from None


def _clean_token(configuration: Configuration, file: Named) -> None:
    """Leave visible ASCII of the token (RFC 6750): http.client would quote others in its error."""
    _, _, token = configuration.api_key[_BEARER].partition(" ")
    token = token.strip()
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise unavailable(
            f"The file of {file.flag}, {file.path}, holds no bearer token.",
            file.path,
            "The file must hold the token and nothing else."
            if file.flag != "--kubeconfig"
            else "The user's token must be of visible ASCII letters.",
        )
    configuration.api_key[_BEARER] = f"Bearer {token}"


def _address(url: str) -> str | None:
    """Return an https address without password, query and slash at its end; None for others."""
    try:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.port == 0:
            return None
    except ValueError:  # a port that is no number, a bracket that is not closed
        return None
    return f"https://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
