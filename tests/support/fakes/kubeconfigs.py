"""Kubeconfigs for the double of the API server, and plugins that log in by them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

PLUGIN = """\
#!/bin/sh
echo run >> {directory}/runs
{script}
"""


def kubeconfig(
    directory: Path, url: str, user: dict[str, Any], cluster: dict[str, Any] | None = None
) -> str:
    """Write a kubeconfig as `kubectl config` does; the CA is a file beside it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "node",
        "contexts": [
            {"name": "other", "context": {"cluster": "other", "user": "other"}},
            {"name": "node", "context": {"cluster": "here", "user": "agent"}},
        ],
        "clusters": [
            {"name": "other", "cluster": {"server": "https://192.0.2.1"}},
            {
                "name": "here",
                "cluster": cluster or {"server": url, "certificate-authority": "ca.crt"},
            },
        ],
        "users": [{"name": "agent", "user": user}],
        "preferences": {},
    }
    path = directory / "kubeconfig"
    fresh = directory / "kubeconfig.new"
    fresh.write_text(yaml.safe_dump(document))
    fresh.replace(path)
    return str(path)


def plugin(directory: Path, script: str) -> dict[str, Any]:
    """Write an exec plugin; return the user that names it, relative to the kubeconfig."""
    path = directory / "login-plugin"
    path.write_text(PLUGIN.format(directory=directory, script=script))
    path.chmod(0o755)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./login-plugin",
            "args": None,
            "env": [{"name": "LOGIN_REGION", "value": "north"}],
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": False,
        }
    }


def answer(**status: str) -> str:
    """Return the line of a plugin's script that prints an ExecCredential."""
    document = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    return f"cat <<'END'\n{json.dumps(document)}\nEND"


def runs(directory: Path) -> int:
    """Return how often the plugin was run."""
    path = directory / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def descriptors() -> set[str]:
    """Return what the descriptors of this process are open on."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the listing's own
            continue
    return found


HIDDEN = "s3cr3t-of-the-user"


def document(
    user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A kubeconfig with one context, before it is written."""
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "agent"}}],
        "clusters": [
            {
                "name": "one",
                "cluster": {"server": "https://192.0.2.1", "certificate-authority": "ca.crt"}
                | (cluster or {}),
            }
        ],
        "users": [{"name": "agent", "user": {"token": HIDDEN} if user is None else user}],
        **more,
    }
