"""Signing in to the admin at an identity provider (OpenID Connect, by django-allauth); mounted only where it is configured."""
