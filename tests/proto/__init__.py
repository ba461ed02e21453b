"""Compatibility of the published .proto files."""
