"""`netutil watch`: prints changes as they come, until it is interrupted."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, replace

from netutil.client.cli.exit_codes import Exit, exit_code_for
from netutil.client.cli.output import complain, write
from netutil.client.cli.render.diff import differences
from netutil.client.documents import rfc3339, to_json
from netutil.client.errors import DeadlineExceeded, NetUtilError, Unavailable, Unreachable
from netutil.client.models.devices import All
from netutil.client.models.observation import Observation, changed_parts
from netutil.client.rpc.aio import AsyncClient
from netutil.client.rpc.retry import Reconnects
from netutil.client.text import escaped

_FIRST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """`longest_seconds` ends the watch; None does not. `env` shows variables in lines."""

    socket: str | None
    output: str
    longest_seconds: float | None
    env: bool


class _Ended(Exception):
    """The command ends with this code."""

    def __init__(self, code: Exit) -> None:
        super().__init__(code)
        self.code = code


async def watch(options: WatchOptions) -> Exit:
    """Print each change as it comes, also after a restart of the agent."""
    printer = _Printer(options.output, env=options.env)
    try:
        async with asyncio.timeout(options.longest_seconds):
            async with AsyncClient(options.socket) as client:
                await _print_all(client, printer, options)
    except TimeoutError:
        return Exit.OK if printer.before is not None else Exit.UNAVAILABLE
    except _Ended as ended:
        return ended.code
    except NetUtilError as error:
        complain(error, options.output)
        return exit_code_for(error)
    return Exit.OK


async def _print_all(client: AsyncClient, printer: _Printer, options: WatchOptions) -> None:
    reconnects, started = Reconnects(), time.monotonic()
    while True:
        try:
            async with aclosing(client.watch()) as observations:
                async for observation in observations:
                    reconnects.succeeded()
                    printer.show(observation)
        except (Unavailable, DeadlineExceeded) as error:
            waited = time.monotonic() - started > _FIRST_SECONDS
            if printer.before is None and (waited or isinstance(error, Unreachable)):
                raise
            printer.lose(error)
        await asyncio.sleep(reconnects.pause_seconds())


class _Printer:
    """Prints observations, each compared with the previous one."""

    def __init__(self, output: str, *, env: bool) -> None:
        self._output = output
        self._env = env
        self._lost = False
        self.before: All | None = None

    def show(self, observation: Observation) -> None:
        """Print what changed. Raises `_Ended` when the output cannot be written."""
        before, self.before = self.before, observation.snapshot
        self._lost = False
        if before is not None and observation.version == 1:  # of an agent that follows
            changed = changed_parts(before, observation.snapshot)
            if not changed:
                return
            observation = replace(observation, changed=changed)
        if self._output == "json":
            text = to_json(observation, indent=None)
        else:
            text = _lines(before, observation, env=self._env)
        if (written := write(text)) is not Exit.OK:
            raise _Ended(written)

    def lose(self, error: NetUtilError) -> None:
        """Report the loss of the agent, once until it is back."""
        if not self._lost and self.before is not None:
            complain(error, self._output)
        self._lost = True


def _lines(before: All | None, observation: Observation, *, env: bool) -> str:
    at = "" if observation.observed_at is None else rfc3339(observation.observed_at)
    if before is None:
        pod = observation.snapshot.pod
        name = f"{pod.namespace}/{pod.name}" if pod else "a pod that is not known yet"
        failed = [f"{error.part}: {error.reason}" for error in observation.snapshot.errors]
        return f"{at} watching {escaped(name)}{''.join(f'; no {one}' for one in failed)}\n"
    return "".join(
        f"{at} {escaped(one.path)}: {escaped(one.before)} -> {escaped(one.now)}\n"
        for one in differences(before, observation.snapshot)
        if env or not one.path.startswith("environment.envs.")
    )
