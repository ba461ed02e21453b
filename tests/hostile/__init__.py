"""Attacks: each is really tried, and docs/security.md names the test that tries it."""
