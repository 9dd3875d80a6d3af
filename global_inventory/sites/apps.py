"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    name = "global_inventory.sites"
    label = "sites"
    verbose_name = "Sites"
    default_auto_field = "django.db.models.BigAutoField"
