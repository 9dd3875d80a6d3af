"""App config of the shared model; registers the system checks."""

from django.apps import AppConfig


class DatamodelConfig(AppConfig):
    name = "datamodel"
    verbose_name = "Inventory"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # They need the app registry, which is being filled while this module is imported.
        from datamodel import checks  # noqa: F401, PLC0415
