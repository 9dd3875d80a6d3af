"""The inventory as it was at a moment, and snapshots: moments of a namespace whose bytes are kept."""
