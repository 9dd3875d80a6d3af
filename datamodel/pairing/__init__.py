"""Pairing of two inventories by a one-time code: each then knows the other by its keys. See the README, "Pairing sites and globals"."""
