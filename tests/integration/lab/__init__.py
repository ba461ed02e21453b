"""The lab itself (tests/support/lab)."""
