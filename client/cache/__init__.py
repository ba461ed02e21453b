"""The newest snapshot of a Watch stream, read without a call."""
