"""What one pod may cost the others."""
