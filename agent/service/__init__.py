"""The gRPC methods: identify, gather, answer. No other logic."""
