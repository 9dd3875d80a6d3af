"""What becomes of replaced and deleted content."""
