"""Streams of snapshots, and the notifications of changes."""
