"""The clients: connections to the agent, requests, retries, and why a connection fails."""
