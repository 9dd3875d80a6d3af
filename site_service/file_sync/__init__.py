"""Pulling wanted bytes that this site lacks."""
