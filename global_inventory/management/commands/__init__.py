"""Commands of a global inventory."""
