"""An older agent's keeper that looks without a pause: `python -m tests.door.looking PATH`.

Runs until it is killed.
"""

from __future__ import annotations

import sys
from typing import cast

from netutil.agent.door.door import Door
from netutil.agent.door.keeper import Keeper, Kept
from netutil.agent.door.listener import Listener, listen
from netutil.agent.identity.pinning import choose_pin


class Bound:
    """As much of a door as a keeper needs."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def rebind(self, listener: Listener) -> None:
        self.listener.connection.close()
        self.listener = listener


def main() -> None:
    pin, _ = choose_pin()
    door = Bound(listen(sys.argv[1], mode=0o666, directory_mode=0o755))
    print("looking", flush=True)
    while True:
        # A new keeper has no patience with another agent's missing socket.
        Keeper(cast("Door", door), pin, Kept()).look()


if __name__ == "__main__":
    main()
