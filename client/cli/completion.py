"""Completion of the command line in bash, zsh and fish, by argcomplete."""

from __future__ import annotations

import argparse
import os

SHELLS = ("bash", "zsh", "fish")
COMPLETION = """\
Print what makes a shell complete netutil's commands and options.

  bash   netutil completion bash >/etc/bash_completion.d/netutil
  zsh    source <(netutil completion zsh), after compinit, in ~/.zshrc
  fish   netutil completion fish >~/.config/fish/completions/netutil.fish"""


def answer_shell(parser: argparse.ArgumentParser) -> None:
    """If a shell asks what can stand at its cursor, answer it and end the process."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete  # noqa: PLC0415  only a shell needs it

        argcomplete.autocomplete(parser)


def shell_code(shell: str) -> str:
    """Return what one of `SHELLS` is to read."""
    from argcomplete.shell_integration import shellcode  # noqa: PLC0415

    return shellcode(["netutil"], shell=shell)
