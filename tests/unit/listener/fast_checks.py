"""An older agent that checks its socket without a pause.

`python -m tests.unit.listener.fast_checks PATH` runs until it is killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from netutil.agent.listener.unix_socket import Listener

from tests.unit.listener.harness import start, watch_of


class Holder:
    """Holds a listener and accepts nothing."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def rebind(self, listener: Listener) -> None:
        self.listener.connection.close()
        self.listener = listener


def main() -> None:
    holder = Holder(start(Path(sys.argv[1])))
    print("checking", flush=True)
    while True:
        # A new watch has no grace period for another agent's missing socket.
        watch, _ = watch_of(holder)
        watch.check()


if __name__ == "__main__":
    main()
