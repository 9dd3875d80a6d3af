"""Snapshots and the inventory as of a moment."""
