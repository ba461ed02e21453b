"""Protobuf messages of values, encoded answers, and statuses of errors."""
