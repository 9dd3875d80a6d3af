"""Inventory against storage: what differs, why, and what an operator may do about it."""
