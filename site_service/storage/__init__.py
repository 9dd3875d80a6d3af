"""Stores of artifact bytes: one contract, several back ends."""
