"""The identities of a cluster: one CA, a certificate for each user, and their kubeconfigs."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.e2e.settings import CLIENT_CA, as_yaml

DIRECTORY = Path(CLIENT_CA).parent


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def written(self, name: str) -> tuple[str, str]:
        """Write both; return their paths, the certificate's first."""
        certificate, key = DIRECTORY / f"{name}.crt", DIRECTORY / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return str(certificate), str(key)


class Authority:
    """The cluster's CA. The kubelet takes it for its clients too."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        self.certificate = self._authority.cert_pem.bytes()
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        Path(CLIENT_CA).write_bytes(self.certificate)

    def issue(self, user: str, group: str, *hosts: str) -> KeyPair:
        """Return what proves to be that user of that group (of these hosts, for a server)."""
        issued = self._authority.issue_cert(
            *(hosts or ("client.netutil.test",)), common_name=user, organization_name=group
        )
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return KeyPair(chain, issued.private_key_pem.bytes())

    def kubeconfig(self, server: str, user: str, group: str) -> str:
        """Write a kubeconfig that needs no other file; return its path."""
        pair = self.issue(user, group)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "e2e",
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
            "clusters": [
                {
                    "name": "e2e",
                    "cluster": {
                        "server": server,
                        "certificate-authority-data": _text(self.certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {
                        "client-certificate-data": _text(pair.certificate),
                        "client-key-data": _text(pair.key),
                    },
                }
            ],
        }
        path = DIRECTORY / f"{user.replace(':', '-')}.conf"
        path.write_text(as_yaml(content), encoding="utf-8")
        return str(path)


def _text(pem: bytes) -> str:
    return base64.b64encode(pem).decode("ascii")
