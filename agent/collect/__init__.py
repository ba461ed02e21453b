"""Collects the facts of one caller, and caches them between calls."""
