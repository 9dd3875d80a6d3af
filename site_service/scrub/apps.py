"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The feature's tables and admin."""

    name = "site_service.scrub"
    label = "scrub"
    verbose_name = "Scrub"
    default_auto_field = "django.db.models.BigAutoField"
