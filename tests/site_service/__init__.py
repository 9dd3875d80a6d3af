"""Tests of the site service."""
