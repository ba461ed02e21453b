"""Facts held between calls: read once, checked at each answer, handed out as values."""
