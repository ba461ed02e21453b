"""The agent with ready-made answers, to see what each of its rooms costs.

`python -m bench.staged STAGE ANSWERS FLAGS…`, flags as of netutil-agent. STAGE `door` answers
any call that the door relays; `identity` identifies the caller as the agent does, and leaves out
the facts. Everything else is the agent's own code.
"""

from __future__ import annotations

import sys
from typing import Any

from netutil.agent import __main__, daemon
from netutil.agent.service.netutil import NetUtil

from bench.answers import canned, read

_PARTS = {
    "GetCPUInfo": "_cpu",
    "GetEnv": "_env",
    "GetNetworkStatus": "_network",
    "GetPod": "_pod",
    "GetResource": "_resources",
    "GetInterfaces": "_interfaces",
    "GetHugepages": "_hugepages",
    "GetAll": "_all",
}


def main() -> int:
    """Run the agent in the stage that the command line names."""
    stage, answers = sys.argv[1:3]
    del sys.argv[1:3]
    if stage == "door":
        vars(daemon)["NetUtil"] = lambda *_: canned(answers)
    else:
        for method, message in read(answers).items():

            async def part(*_: Any, message: Any = message) -> Any:
                return message

            setattr(NetUtil, _PARTS[method], part)
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
