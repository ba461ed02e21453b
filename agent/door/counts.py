"""What a door counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DoorCounts:
    """What the door did since the start."""

    accepted: int = 0
    refused: int = 0
    closed_at_once: int = 0
    hung_up: int = 0
    cut_off: int = 0
    accept_failures: int = 0
    floods: int = 0
