"""The command `netutil-agent`."""

from __future__ import annotations

import asyncio
import os
import sys

from netutil.agent import settings as settings_module
from netutil.agent.ops.logs import set_up


def main() -> int:
    """Run the agent; exit 0 after a clean stop, 1 if it cannot start, 2 for a wrong flag."""
    settings = settings_module.parse(sys.argv[1:], os.environ)
    if settings.check:
        from netutil.agent.service.check import check  # noqa: PLC0415 - a short-lived process

        return check(settings.socket)
    set_up(settings.log_level, settings.log_format)
    from netutil.agent.daemon import Agent  # noqa: PLC0415 - a wrong flag is told at once

    async def run() -> None:
        await Agent(settings).run()

    try:
        asyncio.run(run())
    except OSError as error:
        print(f"netutil-agent: cannot serve: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
