"""Facts of callers, held while they are asked about and read again when they change."""
