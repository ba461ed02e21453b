"""Limits of one pod: rates, amounts, and the fair order of work."""
