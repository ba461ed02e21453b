"""What operators see of the agent itself: metrics, health, logs."""
