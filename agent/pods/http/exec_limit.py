"""Runs a credential plugin within limits: `exec_limit.py SECONDS BYTES COMMAND [ARGUMENT...]`.

The package `kubernetes` starts an exec plugin of a kubeconfig and waits for its end, for ever, and
reads whatever it writes. The agent lets it start this program instead, which starts the plugin,
hands on what it writes, and ends it with its whole process group past a limit. The agent runs this
program by its path, without site packages, and imports the standard library alone.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import subprocess
import sys
import time
from typing import IO

NOT_STARTED = 127
"""The exit status of a plugin that cannot be started: POSIX, "Command Search and Execution"."""
LIMIT_PASSED = 124
"""The exit status past a limit, as of timeout(1)."""
_CHUNK_BYTES = 64 * 1024


def main(arguments: list[str]) -> int:
    """Return the plugin's exit status, or one of the above, with the reason on standard error."""
    seconds, most_bytes, *command = arguments
    try:
        plugin = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED
    with plugin:
        try:
            passed = _hand_on(plugin, float(seconds), int(most_bytes))
        finally:
            # Its children too: they may hold the pipes open.
            try:
                os.killpg(plugin.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    if passed:
        print(f"{command[0]}: {passed}", file=sys.stderr)
        return LIMIT_PASSED
    return plugin.returncode if plugin.returncode >= 0 else 128 - plugin.returncode


def _hand_on(plugin: subprocess.Popen[bytes], seconds: float, most_bytes: int) -> str:
    """Copy both streams until the plugin has ended. Return which limit was passed, "" for none."""
    ends_at = time.monotonic() + seconds
    streams: list[tuple[IO[bytes] | None, IO[bytes]]] = [
        (plugin.stdout, sys.stdout.buffer),
        (plugin.stderr, sys.stderr.buffer),
    ]
    rest = most_bytes
    with selectors.DefaultSelector() as selector:
        for source, sink in streams:
            if source is not None:
                selector.register(source, selectors.EVENT_READ, sink)
        while selector.get_map():
            left = ends_at - time.monotonic()
            ready = selector.select(left) if left > 0 else ()
            if not ready:
                return f"it did not end within {seconds:g} s"
            for key, _ in ready:
                content = os.read(key.fd, _CHUNK_BYTES)
                if not content:
                    selector.unregister(key.fileobj)
                rest -= len(content)
                if rest < 0:
                    return f"it wrote more than {most_bytes} bytes"
                key.data.write(content)
                key.data.flush()
    left = ends_at - time.monotonic()
    return "" if _has_ended(plugin.pid, left) else f"it did not end within {seconds:g} s"


def _has_ended(pid: int, seconds: float) -> bool:
    """Wait for the end of a child, but leave its status: its number stays its own until then."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], max(0.0, seconds))[0])
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
