"""Inventory against inventory, at the cost of the difference: digests by id, listings of what differs, repairs with evidence."""
