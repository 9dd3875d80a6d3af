"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The byte plane owns one table: put transactions."""

    name = "site_service.files"
    label = "files"
    verbose_name = "Files"
    default_auto_field = "django.db.models.BigAutoField"
