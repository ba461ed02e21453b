"""The settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# gRPC's C core writes a line for each GOAWAY with an error, which many tests cause: silent, as the
# agent and the command make it (grpc/doc/environment_variables.md).
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A loaded machine takes half a second for what takes a millisecond: no example has a deadline.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
