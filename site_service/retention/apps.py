"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The feature's tables and admin."""

    name = "site_service.retention"
    label = "retention"
    verbose_name = "Retention"
    default_auto_field = "django.db.models.BigAutoField"
