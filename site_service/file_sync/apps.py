"""App config."""

from django.apps import AppConfig


class FeatureConfig(AppConfig):
    """The feature's tables and admin."""

    name = "site_service.file_sync"
    label = "file_sync"
    verbose_name = "File sync"
    default_auto_field = "django.db.models.BigAutoField"
