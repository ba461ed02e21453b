"""What one pod may have of the agent: rates, amounts, and its place in the order of work."""
