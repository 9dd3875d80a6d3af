"""Snapshots of a global: its sites are told of them, and say that they keep what they name."""
