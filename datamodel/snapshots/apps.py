"""App config."""

from django.apps import AppConfig


class SnapshotsConfig(AppConfig):
    """Snapshots, their schedules, and what inventories have told each other of them."""

    name = "datamodel.snapshots"
    label = "snapshots"
    verbose_name = "Snapshots"
    default_auto_field = "django.db.models.BigAutoField"
