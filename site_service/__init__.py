"""A storage site: the only code that touches bytes."""
