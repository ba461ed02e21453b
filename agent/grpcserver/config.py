"""What a server is configured with. Sizes are in bytes, times in seconds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Streams of one connection."""

    max_concurrent: int = 64
    window_bytes: int = 4096
    """Of each stream, at its start: what a larger message lacks is given to it when it begins."""
    max_errors: int = 100
    """Streams of one connection that the server resets for errors of the peer."""


@dataclass(frozen=True, slots=True)
class PingLimits:
    """PINGs of one connection that no data comes between."""

    min_interval: float = 1.0
    max_strikes: int = 2


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Messages of one call."""

    max_request_bytes: int = 64 * 1024
    """One message of a request, inflated."""
    max_response_bytes: int = 16 * 1024 * 1024
    max_buffered_request_bytes: int = 256 * 1024
    """Of one connection: messages larger than their stream's window, until a handler takes them.
    Past it the next ones wait, and hold no more than their windows."""
    max_unread: int = 256
    """Of one call: a message takes more memory than its bytes."""
    max_buffered_response_bytes: int = 1024
    """Of one stream: what the peer has not taken yet; past it `write` waits. Small messages do not:
    grpcio's health servicer writes under a lock that all watchers of a service share."""


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """The header fields of one request."""

    max_list_bytes: int = 8 * 1024
    """Names, values and 32 for each field; past it the call is refused."""
    max_block_bytes: int = 128 * 1024
    """As sent or decoded; past it the connection is closed."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the server waits for a peer."""

    preface: float = 10.0
    """How long a connection may take to its first whole SETTINGS frame."""
    graceful_ping: float = 1.0
    """How long the first GOAWAY waits for the answer to its PING before the second."""
    linger: float = 1.0
    """How long a connection without streams waits for the peer to close after the last GOAWAY."""
    late_reset: float = 1.0
    """How long after its deadline a call is reset whose peer has not taken all of its data."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Limits of one server."""

    streams: StreamLimits = field(default_factory=StreamLimits)
    pings: PingLimits = field(default_factory=PingLimits)
    messages: MessageLimits = field(default_factory=MessageLimits)
    headers: HeaderLimits = field(default_factory=HeaderLimits)
    timeouts: Timeouts = field(default_factory=Timeouts)
