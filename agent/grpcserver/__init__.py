"""gRPC on connections that the caller accepts: HTTP/2 in the server's role, on asyncio.

The server knows nothing of the agent, and serves grpcio's own servicers unmodified.
"""

from netutil.agent.grpcserver.call import Call, Status, call_of
from netutil.agent.grpcserver.config import (
    HeaderLimits,
    MessageLimits,
    PingLimits,
    ServerConfig,
    StreamLimits,
    Timeouts,
)
from netutil.agent.grpcserver.framing import EncodedMessage
from netutil.agent.grpcserver.poller import peer_closed
from netutil.agent.grpcserver.protocol import Connection
from netutil.agent.grpcserver.server import CallPolicy, Server
from netutil.agent.grpcserver.steps import gather

__all__ = [
    "Call",
    "CallPolicy",
    "Connection",
    "EncodedMessage",
    "HeaderLimits",
    "MessageLimits",
    "PingLimits",
    "Server",
    "ServerConfig",
    "Status",
    "StreamLimits",
    "Timeouts",
    "call_of",
    "gather",
    "peer_closed",
]
