"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A loaded machine takes half a second for what takes a millisecond: no example has a deadline.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
