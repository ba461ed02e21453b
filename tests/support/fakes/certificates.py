"""TLS of the fakes of a kubelet or an API server."""

from __future__ import annotations

import ssl

import trustme


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's TLS context that presents the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
