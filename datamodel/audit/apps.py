"""App config of the audit."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "datamodel.audit"
    label = "audit"
    verbose_name = "Audit"

    def ready(self) -> None:
        # Signals of models that are being loaded while this module is imported.
        from datamodel.audit import logins  # noqa: F401, PLC0415
