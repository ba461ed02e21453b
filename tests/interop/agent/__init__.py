"""The clients of `tests/interop` in a pod, against the whole agent."""
