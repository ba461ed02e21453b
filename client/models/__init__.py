"""The answers as plain values: frozen dataclasses without protobuf."""
