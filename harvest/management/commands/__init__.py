"""Commands of the metadata exchange."""
