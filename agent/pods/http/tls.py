"""TLS files and the token for the kubelet, read again when they are rotated."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netutil.agent.errors import Unavailable
from netutil.agent.pods.sources.base import Signature, signature, unavailable

_MAX_TOKEN_BYTES = 64 * 1024


class Verify(StrEnum):
    """How a serving certificate is checked."""

    FULL = "full"
    CA = "ca"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a TLS connection. `ca_file` None means the system's own CAs."""

    verify: Verify
    ca_file: str | None
    client_cert: str | None = None
    client_key: str | None = None

    def signatures(self) -> tuple[Signature, ...]:
        """Return what changes when one of the files is rotated. Raises `Unavailable`."""
        return tuple(_signature(flag, path) for flag, path in self._used())

    def open_context(self) -> ssl.SSLContext:
        """Return a context made of the files as they are now. Raises `Unavailable`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.verify is Verify.FULL
        if self.verify is Verify.NONE:
            context.verify_mode = ssl.CERT_NONE
        elif self.ca_file:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except OSError as error:  # an ssl.SSLError is one
                raise _unusable("--kubelet-ca", self.ca_file, error) from None
        else:
            context.load_default_certs()
        if self.client_cert:
            try:
                context.load_cert_chain(self.client_cert, self.client_key)
            except OSError as error:
                raise _unusable("--kubelet-client-cert", self.client_cert, error) from None
        return context

    def _used(self) -> list[tuple[str, str]]:
        ca_file = self.ca_file if self.verify is not Verify.NONE else None
        files = (
            ("--kubelet-ca", ca_file),
            ("--kubelet-client-cert", self.client_cert),
            ("--kubelet-client-key", self.client_key),
        )
        return [(flag, path) for flag, path in files if path]


def read_token(path: str, *, required: bool) -> str:
    """Return the bearer token in a file, "" if there is no file and none is required.

    Raises `Unavailable`, which never has the token, if there is no token in it.

    Read for each request: a projected token is rotated about once an hour.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_TOKEN_BYTES)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not required:
            return ""
        raise _unusable("--kubelet-token", path, error) from None
    token = content.strip()
    # RFC 6750: visible ASCII. http.client would quote anything else in its error.
    if not token or not all(0x21 <= byte <= 0x7E for byte in token):  # noqa: PLR2004
        raise unavailable(
            f"The file of --kubelet-token, {path}, holds no bearer token.",
            path,
            "The file must hold the token and nothing else.",
        )
    return token.decode("ascii")


def _signature(flag: str, path: str) -> Signature:
    try:
        return signature(os.stat(path))
    except OSError as error:
        raise _unusable(flag, path, error) from None


def _unusable(flag: str, path: str, error: OSError) -> Unavailable:
    why = error.strerror or str(error)
    if isinstance(error, ssl.SSLError):
        why = error.reason.replace("_", " ").lower() if error.reason else str(error)
    return unavailable(
        f"The file of {flag}, {path}, cannot be used: {why}.",
        path,
        f"Name a readable PEM file in {flag}; it is read again at the next try."
        if not flag.endswith("-token")
        else f"Mount the service account's token, or name its file in {flag}.",
    )
