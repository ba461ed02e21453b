"""What a caller, the log and the metrics must not contain."""
