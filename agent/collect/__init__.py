"""What is held between calls, and handed to the services as values."""
