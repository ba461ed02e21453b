"""A `CallPolicy` for tests to derive theirs from."""

from __future__ import annotations

from collections.abc import Callable

from netutil.agent.grpcserver import Call, Connection, Status

Work = Callable[[], None]


class OpenPolicy:
    """Admits all calls, and lets all work run at once."""

    def admit(self, call: Call) -> Status | None:
        return None

    def rejected(self, call: Call, status: Status) -> Status:
        return status

    def finished(self, call: Call) -> None:
        """Nothing is counted."""

    def may_process(self, connection: Connection) -> bool:
        return True

    def may_resume(self, connection: Connection) -> bool:
        return True

    def wait(self, connection: Connection, work: Work) -> None:
        raise AssertionError("all work may run at once")

    def forget(self, connection: Connection, work: Work) -> None:
        raise AssertionError("no work waits")

    def resumed(self, connection: Connection, seconds: float) -> None:
        """Nothing is charged."""

    def processed(self, connection: Connection, seconds: float, overhead: int) -> None:
        """Nothing is charged."""

    def closed(self, peer: object, calls: int) -> None:
        """Nothing is counted."""
