"""Answers of the agent, for tests of the client."""
