"""The command of each attack."""

from __future__ import annotations

import sys

from tests.support.attacks.cgroup_churn import CGROUP_CHURN
from tests.support.attacks.connection_floods import CONNECTION_FLOODS
from tests.support.attacks.environments import ENVIRONMENTS
from tests.support.attacks.frame_floods import FLOODS
from tests.support.attacks.header_floods import HEADER_FLOODS
from tests.support.attacks.network_churn import NETWORK_CHURN
from tests.support.attacks.window_floods import WINDOW_FLOODS

FLOOD_CONNECTIONS = 16


def attack(name: str, *arguments: str) -> list[str]:
    """The command of a module of this package. It needs the repository in PYTHONPATH."""
    return [sys.executable, "-S", "-m", f"tests.support.attacks.{name}", *arguments]


_FLOODS = {
    "frame_floods": tuple(FLOODS),
    "header_floods": tuple(HEADER_FLOODS),
    "window_floods": tuple(WINDOW_FLOODS),
}


CONTROL = "no-attack"


ATTACKS: dict[str, list[str]] = {
    CONTROL: [sys.executable, "-S", "-c", "while True: pass"],
    **{
        name: attack(module, name, str(FLOOD_CONNECTIONS))
        for module, table in _FLOODS.items()
        for name in table
    },
    **{name: attack("connection_floods", name) for name in CONNECTION_FLOODS},
    **{name: attack("environments", name) for name in ENVIRONMENTS},
    **{name: attack("cgroup_churn", name) for name in CGROUP_CHURN},
    **{name: attack("network_churn", name) for name in NETWORK_CHURN},
}
"""The command of each attack, by its name.

The control takes the CPU of the pods, as the attacks do, and asks nothing: it shows what the
machine itself does.
"""
