"""Management code of the exchange."""
