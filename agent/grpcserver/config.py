"""What a server is configured with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Limits of one server. Sizes are in bytes, times in seconds."""

    max_concurrent_streams: int = 64
    max_request_bytes: int = 64 * 1024
    """One message of a request, inflated."""
    max_response_bytes: int = 16 * 1024 * 1024
    max_header_list_bytes: int = 8 * 1024
    """Of one request, names, values and 32 for each field; past it the call is refused."""
    max_header_block_bytes: int = 128 * 1024
    """Of one request, as sent or decoded; past it the connection is closed."""
    stream_window_bytes: int = 4096
    """Of each stream, at its start: what a larger message lacks is given to it when it begins."""
    max_buffered_request_bytes: int = 256 * 1024
    """Of one connection: messages larger than their stream's window, until a handler takes them.
    Past it the next ones wait, and hold no more than their windows."""
    max_unread_messages: int = 256
    """Of one call: a message takes more memory than its bytes."""
    max_buffered_response_bytes: int = 1024
    """Of one stream: what the peer has not taken yet; past it `write` waits. Small messages do not:
    grpcio's health servicer writes under a lock that all watchers of a service share."""
    preface_timeout: float = 10.0
    """How long a connection may take to its first whole SETTINGS frame."""
    min_ping_interval: float = 1.0
    max_ping_strikes: int = 2
    max_stream_errors: int = 100
    """Streams of one connection that the server resets for errors of the peer."""
    graceful_ping_timeout: float = 1.0
    """How long the first GOAWAY waits for the answer to its PING before the second."""
    linger_timeout: float = 1.0
    """How long a connection without streams waits for the peer to close after the last GOAWAY."""
    late_reset_timeout: float = 1.0
    """How long after its deadline a call is reset whose peer has not taken all of its data."""
