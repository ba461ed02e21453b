"""Logins at the API server by the package `kubernetes`: a service account or a kubeconfig.

A login gives the package's `Configuration` anew for each request, so that what was rotated is used
from the next request on. The agent adds to the package what it lacks: limits of size and time,
complete verification always, no proxy, and errors that name the flag and never quote a secret.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException
from kubernetes.config.dateutil import parse_rfc3339
from kubernetes.config.exec_provider import ExecProvider
from kubernetes.config.incluster_config import (
    SERVICE_HOST_ENV_NAME,
    SERVICE_PORT_ENV_NAME,
    InClusterConfigLoader,
)
from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http import exec_limit
from netutil.agent.pods.http.errors import API_SERVER, KUBECONFIG_SERVER, ServerMessages
from netutil.agent.pods.http.kubeconfig import Exec, Kubeconfig, User, selected
from netutil.agent.pods.sources.base import Signature, signature, unavailable

MAX_TOKEN_BYTES = 64 * 1024
MAX_FILE_BYTES = 1024 * 1024
"""The largest kubeconfig, and the largest bundle of certificates."""
MAX_PLUGIN_BYTES = 256 * 1024
"""The most that an exec plugin may write."""
_UNNAMED_FILES = "/dev/shm"  # noqa: S108 - files without a name, which no other process can open
_EXPIRY_MARGIN = timedelta(seconds=30)
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
        token_file = _Named("--apiserver-token", account.token_file)
        _ensure_usable(token_file, MAX_TOKEN_BYTES)
        ca_file = _Named("--apiserver-ca", account.ca_file)
        _ensure_usable(ca_file, MAX_FILE_BYTES)
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
        self._file = _Named("--kubeconfig", settings.path)
        self._directory = os.path.dirname(os.path.abspath(settings.path))
        self._now = now
        self._lock = threading.Lock()  # held while a plugin runs: the others wait for its answer
        self._kept: _Credential | None = None

    def describe(self) -> str:
        """Return the path."""
        return self._settings.path

    @contextmanager
    def configuration(self) -> Iterator[Configuration]:
        """Read the file, and run its exec plugin if there is one and no answer is kept."""
        content, found_signature = _read(self._file)
        config = selected(content, self._unusable)
        host = _address(config.cluster.server)
        if host is None:
            raise self._unusable("its server is not https://HOST:PORT")
        configuration = _direct()
        with ExitStack() as files:
            user = self._certificates(config.user, files)
            if config.user.exec is not None:
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
            cluster["certificate-authority"] = _unnamed(data, files, self._unusable)
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
                _ensure_usable(_Named("--kubeconfig", path), most_bytes)
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
                found[kind] = _unnamed(data, files, self._unusable)
            elif getattr(user, field):
                found[kind] = getattr(user, field)
        return found

    def _from_plugin(
        self, plugin: Exec, config: Kubeconfig, found_signature: Signature, files: ExitStack
    ) -> dict[str, str]:
        """Return the user that the exec plugin tells of: client authentication, "v1"."""
        with self._lock:
            kept = self._kept
            if kept is None or not kept.is_usable(found_signature, self._now()):
                kept = self._kept = self._run(plugin, config, found_signature)
        user = {"token": kept.token} if kept.token else {}
        if kept.certificate:
            certificate, key = kept.certificate.encode(), kept.key.encode()
            user["client-certificate"] = _unnamed(certificate, files, self._unusable)
            user["client-key"] = _unnamed(key, files, self._unusable)
        return user

    def _run(self, plugin: Exec, config: Kubeconfig, found_signature: Signature) -> _Credential:
        """Run the plugin by the package, within limits. Blocks. Raises `Unavailable`."""
        limits = (str(self._settings.plugin_seconds), str(MAX_PLUGIN_BYTES))
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
        cluster = ConfigNode("cluster", config.raw_cluster)
        try:
            # Not by its loader, which logs a failure and goes on without a login.
            answer = ExecProvider(ConfigNode("exec", entry), self._directory, cluster).run()
            status = msgspec.convert(answer, _Status)
            expires_at = None
            if status.expiration_timestamp:
                expires_at = parse_rfc3339(status.expiration_timestamp)
        except (ConfigException, OSError) as error:
            raise self._plugin_failed(_shown(str(error).removeprefix("exec: "))) from None
        except (ValueError, TypeError, RecursionError) as error:
            # Not in its own words, which may quote the answer.
            why = f"its answer is no ExecCredential: {type(error).__name__}"
            raise self._plugin_failed(why) from None
        if not status.token and not (status.certificate and status.key):
            why = "its answer has neither a token nor a client certificate and its key"
            raise self._plugin_failed(why)
        return _Credential(
            found_signature, status.token, status.certificate, status.key, expires_at
        )

    def _decoded(self, field: str, holder: object) -> bytes:
        try:
            return base64.b64decode(getattr(holder, field.replace("-", "_")))
        except (binascii.Error, ValueError):
            raise self._unusable(f"its {field} is no base64") from None

    def _unusable(self, why: str) -> Unavailable:
        return _unusable(self._file, why)

    def _plugin_failed(self, why: str) -> Unavailable:
        return unavailable(
            f"The exec plugin of --kubeconfig failed: {why}.",
            self._settings.path,
            "Run the command of the user's exec entry by hand, as root and with no terminal.",
        )


class _Status(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """ExecCredentialStatus of client.authentication.k8s.io/v1."""

    token: str = ""
    certificate: str = msgspec.field(name="clientCertificateData", default="")
    key: str = msgspec.field(name="clientKeyData", default="")
    expiration_timestamp: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class _Credential:
    """What an exec plugin answered for a file with that signature."""

    signature: Signature
    token: str
    certificate: str
    key: str
    expires_at: datetime | None

    def is_usable(self, found: Signature, now: datetime) -> bool:
        if self.expires_at is not None and now >= self.expires_at - _EXPIRY_MARGIN:
            return False
        return self.signature == found


@dataclass(frozen=True, slots=True)
class _Named:
    """A file and the flag that names it."""

    flag: str
    path: str


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
            f"The agent cannot log in at the API server: {_shown(why)}.", read, f"Look at {flags}."
        ) from None
    except ValueError as error:  # a file that is no UTF-8
        why = type(error).__name__
        raise unavailable(
            f"The agent cannot log in at the API server: {why}.", read, f"Look at {flags}."
        ) from None


def _clean_token(configuration: Configuration, file: _Named) -> None:
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


def _ensure_usable(file: _Named, most_bytes: int) -> None:
    """Raise `Unavailable` for what is no regular file, or larger: the package reads it whole."""
    try:
        found = os.stat(file.path)
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from None
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(file, "it is no regular file")
    if found.st_size > most_bytes:
        raise _unusable(file, f"it is larger than {most_bytes} bytes")


def _read(file: _Named) -> tuple[bytes, Signature]:
    """Return the content and what changes with it."""
    _ensure_usable(file, MAX_FILE_BYTES)
    try:
        with Path(file.path).open("rb") as opened:
            found = signature(os.fstat(opened.fileno()))
            return opened.read(MAX_FILE_BYTES), found
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from None


def _unnamed(content: bytes, files: ExitStack, unusable: Callable[[str], Unavailable]) -> str:
    """Return the path of a file in memory, without a name, until the stack ends.

    The package itself writes keys to named files, and keeps them and their content until the
    process ends. The hardened variant has no memfd_create and no writable /tmp.
    """
    try:
        file = files.enter_context(tempfile.TemporaryFile(dir=_UNNAMED_FILES, buffering=0))
        file.write(content)
    except OSError as error:
        raise unusable(f"{_UNNAMED_FILES} cannot be written: {error.strerror}") from None
    return f"/proc/self/fd/{file.fileno()}"


def _unusable(file: _Named, why: str) -> Unavailable:
    return unavailable(
        f"The file of {file.flag}, {file.path}, cannot be used: {why}.",
        file.path,
        "The agent reads the file again at the next try.",
    )


def _shown(text: str) -> str:
    words = "".join(one if one.isprintable() else " " for one in text).split()
    return f"{' '.join(words):.300}".rstrip(". ")
