"""Commands of a storage site."""
