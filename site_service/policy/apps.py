"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The feature's tables and admin."""

    name = "site_service.policy"
    label = "policy"
    verbose_name = "Policy"
    default_auto_field = "django.db.models.BigAutoField"
