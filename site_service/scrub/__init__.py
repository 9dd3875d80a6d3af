"""Stored bytes re-read on a budget: when each copy was last known good, and what happens to one that is not."""
