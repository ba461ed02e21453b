"""Connections of callers: each is identified, or keeps the error that its calls get."""
