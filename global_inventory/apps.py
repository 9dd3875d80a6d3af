"""App config of the global inventory."""

from django.apps import AppConfig


class GlobalInventoryConfig(AppConfig):
    name = "global_inventory"
    verbose_name = "Global inventory"
