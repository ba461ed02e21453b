"""The command `netutil-agent`."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from netutil.agent import config as config_module
from netutil.agent.observability.build_info import read_build_info
from netutil.agent.observability.log_setup import set_up

_LOG = logging.getLogger(__name__)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_LARGE_BYTES = 128 * 1024


def _return_freed_memory() -> None:
    """Let malloc keep little of what is freed (mallopt(3)).

    All threads allocate from two arenas: glibc gives each thread one of up to eight per CPU, and
    what one has freed no other uses, so under load the agent grew by a fifth for nothing. Blocks of
    128 KiB and more have pages of their own, which free(3) gives back: without a threshold that
    is set, the first environment of megabytes raises it for good, and the heap keeps holes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def _silence_grpc() -> None:
    """Keep gRPC's C core from writing to standard error past the limits of the agent's log.

    The C core has a line for each header that a client spells wrong: three bytes of a request made
    a hundred of the log (grpc/doc/environment_variables.md, GRPC_VERBOSITY).
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@contextmanager
def _extra_required() -> Iterator[None]:
    """End the process with one line and status 1 if an import finds a package missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or str(error)
        if name.partition(".")[0] == "netutil":
            raise
        print(
            f"netutil-agent: the Python package {name} is missing: install kube-netutil[agent]",
            file=sys.stderr,
        )
        sys.exit(1)


def main() -> int:
    """Run the agent; exit 0 after a clean stop, 1 if it cannot start, 2 for a wrong flag."""
    config = config_module.parse(sys.argv[1:], os.environ)
    if config.check:
        with _extra_required():
            from netutil.agent.healthcheck import check  # noqa: PLC0415 - a short-lived process

        return check(config.sockets.pods)
    _return_freed_memory()
    _silence_grpc()
    set_up(config.observability.log_level, config.observability.log_format)
    with _extra_required():
        # Imported here: a wrong flag is reported at once.
        from netutil.agent.lifecycle import Agent  # noqa: PLC0415
    _LOG.info("agent: version %s", read_build_info())

    async def run() -> None:
        await Agent(config).run()

    try:
        asyncio.run(run())
    except OSError as error:
        print(f"netutil-agent: cannot serve: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
