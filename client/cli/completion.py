"""Completion of the command line in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

SHELLS = ("bash", "zsh", "fish")
COMPLETION = """\
Print a script that completes netutil's commands and options in a shell.

  bash   netutil completion bash >/etc/bash_completion.d/netutil
  zsh    source <(netutil completion zsh), after compinit, in ~/.zshrc
  fish   netutil completion fish >~/.config/fish/completions/netutil.fish"""
_SECONDS = 1.0
"""Of the call for the pods' names: a person waits at a prompt."""


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """If a shell asks for completions at its cursor, print them and end the process."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete  # noqa: PLC0415  only a shell needs it

        argcomplete.autocomplete(parser)


def shell_code(shell: str) -> str:
    """Return the script for one of `SHELLS`."""
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415

    return shellcode(["netutil"], shell=shell)


def complete_pods(parsed_args: argparse.Namespace, **_: object) -> Sequence[str]:
    """The pods of the node as NAMESPACE/NAME; none if the operator socket does not answer."""
    from netutil.client.errors import NetUtilError  # noqa: PLC0415
    from netutil.client.rpc.sync import NodeClient  # noqa: PLC0415  loads gRPC

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with NodeClient(getattr(parsed_args, "admin_socket", None), _SECONDS) as client:
            return [f"{pod.namespace}/{pod.name}" for pod in client.pods().pods]
    except NetUtilError:  # a prompt has no place for an error
        return []
