"""The agent with ready-made answers, to see what each of its rooms costs.

`python -m bench.staged STAGE ANSWERS FLAGS…`, flags as of netutil-agent. STAGE `door` answers
any call that the door relays; `identity` identifies the caller as the agent does, and leaves out
the facts. Everything else is the agent's own code.
"""

from __future__ import annotations

import sys
from typing import Any

from google.protobuf.message import Message
from netutil.agent import __main__, rooms
from netutil.agent.service.caller import Caller
from netutil.agent.service.netutil import NetUtil

from bench.answers import canned, read


def main() -> int:
    """Run the agent in the stage that the command line names."""
    stage, answers = sys.argv[1:3]
    del sys.argv[1:3]
    if stage == "door":
        put(rooms, "NetUtil", lambda *_: canned(answers))
    else:
        put(NetUtil, "_answer", identified_only(read(answers), NetUtil._answer))
    return __main__.main()


def identified_only(answers: dict[str, Message], answer: Any) -> Any:
    """Return a way to answer that finds out who calls, and then gives what is kept."""

    async def given(self: NetUtil, method: str, context: Any, _: Any, **more: Any) -> Message:
        async def body(caller: Caller) -> Message:
            return answers[method]

        message: Message = await answer(self, method, context, body, **more)
        return message

    return given


def put(where: object, name: str, instead: object) -> None:
    """Replace what is there. AttributeError if it is not: nothing would be left out then."""
    getattr(where, name)
    setattr(where, name, instead)


if __name__ == "__main__":
    sys.exit(main())
