"""Who is calling: from an accepted socket to a pinned process and the container it stands in.

The contract: what is read of a process is read through the handles of a
`PinnedProcess`, and counts only if `ensure_alive` was called *after* the read.
"""
