"""Names of extended resources, as the kubelet accepts them from a device plugin. Pure."""

from __future__ import annotations

import re

_QUOTA_PREFIX = "requests."
_MAX_DOMAIN = 253 - len(_QUOTA_PREFIX)
"""A quota calls the resource `requests.<name>`, and that has to be a name, too."""
_LABEL = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")  # RFC 1123, as Kubernetes checks it
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_NATIVE = "kubernetes.io/"


def is_extended_resource_name(text: str) -> bool:
    """Return whether a device plugin may register that name.

    Kubernetes: IsExtendedResourceName in pkg/apis/core/v1/helper/helpers.go, IsQualifiedName in
    apimachinery's validation.
    """
    domain, slash, name = text.partition("/")
    return (
        bool(slash)
        and _NATIVE not in text
        and not text.startswith(_QUOTA_PREFIX)
        and len(domain) <= _MAX_DOMAIN
        and _DOMAIN.fullmatch(domain) is not None
        and _NAME.fullmatch(name) is not None
    )
