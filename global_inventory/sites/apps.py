"""App config; registers the system checks."""

from importlib import import_module

from django.apps import AppConfig


class SitesConfig(AppConfig):
    """Sites as the global sees them."""

    name = "global_inventory.sites"
    label = "sites"
    verbose_name = "Sites"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        import_module("global_inventory.sites.checks")
