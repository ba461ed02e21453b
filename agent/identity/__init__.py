"""Identifies the peer of a connection: its pinned process and its container.

The contract: what is read of a process is read through the handles of a
`PinnedProcess`, and counts only if `ensure_alive` was called *after* the read.
"""
