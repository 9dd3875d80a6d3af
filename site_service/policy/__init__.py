"""What this site wants."""
