"""Accepted connections: identified, or kept with the error that their calls get."""
