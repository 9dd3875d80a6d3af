"""Snapshots at a site."""
