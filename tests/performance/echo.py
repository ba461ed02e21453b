"""A server that sends back each byte: `python -m tests.performance.echo PATH`.

What calls to it take longer during an attack is the scheduler's doing, and no agent's.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys


def run_at_once() -> None:
    """Become a real-time task; say so if that may not be."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("not a real-time task: the scheduler's delays are in the times", file=sys.stderr)


def main() -> None:
    run_at_once()
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(64)
            if data:
                connection.sendall(data)
            else:
                selector.unregister(connection)
                connection.close()


if __name__ == "__main__":
    main()
