"""Attacks: each is really tried, and docs/threat-model.md names the test that tries it."""
