"""A call as gRPC shows it to whoever answers it, of whatever messages."""

from __future__ import annotations

from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
