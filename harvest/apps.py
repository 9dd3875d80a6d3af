"""App config of the metadata exchange."""

from django.apps import AppConfig


class HarvestConfig(AppConfig):
    """Holds no tables: the exchange works on those of `datamodel`."""

    name = "harvest"
    verbose_name = "Harvest"
