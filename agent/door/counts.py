"""What a door counts."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.listener.acceptor import AcceptCounts


@dataclass(slots=True)
class DoorCounts(AcceptCounts):
    """What the door did since the start."""

    refused: int = 0
    cut_off: int = 0
