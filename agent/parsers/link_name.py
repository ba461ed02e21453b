"""What the kernel takes for a link's name. Source: dev_valid_name in its net/core/dev.c."""

from __future__ import annotations

LONGEST_LINK_NAME = 15
"""Bytes: IFNAMSIZ less the final NUL, netdevice(7)."""


def is_link_name(name: str) -> bool:
    """Tell whether a link may have the name; whether one has it only the kernel can say."""
    if not name or name in (".", "..") or len(name.encode()) > LONGEST_LINK_NAME:
        return False
    return not any(character in "/:" or character.isspace() for character in name)
