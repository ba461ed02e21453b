"""Whose facts a caller gets."""
