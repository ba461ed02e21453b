"""The agent on another event loop than asyncio's: `python -m bench.agent_on LOOP FLAGS…`.

LOOP is `asyncio`, or a package with an `EventLoopPolicy` as uvloop has it. The agent itself has
no flag for that.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

from netutil.agent import __main__ as agent


def main() -> int:
    """Run the agent; return its exit code. ModuleNotFoundError if the loop is not installed."""
    policy = importlib.import_module(sys.argv.pop(1))
    asyncio.set_event_loop_policy(
        asyncio.DefaultEventLoopPolicy() if policy is asyncio else policy.EventLoopPolicy()
    )
    return agent.main()


if __name__ == "__main__":
    sys.exit(main())
