"""The gRPC services: one method resolves the caller, collects and converts."""
