"""Inventory against inventory, at the cost of the difference: digests by bucket, listings of what differs, repairs with evidence."""
