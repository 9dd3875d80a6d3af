"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The feature's tables and admin."""

    name = "site_service.file_validate"
    label = "file_validate"
    verbose_name = "File validate"
    default_auto_field = "django.db.models.BigAutoField"
