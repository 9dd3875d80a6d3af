"""Tests of what is special to one store."""
