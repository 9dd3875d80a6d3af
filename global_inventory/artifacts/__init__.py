"""Read-only queries over artifacts and their copies."""
