"""The admin site: whatever is added, changed or removed in it is recorded once, for all its pages, also Django's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.db.models import Model
from django.http import HttpRequest

from datamodel.audit import acting
from datamodel.audit.recording import record
from datamodel.audit.rules import Action


class Recorded(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Where Django writes its own log, in the same transaction. What an operation has recorded is not recorded again."""

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        _record_objects("add", [obj], message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        _record_objects("change", [obj], message)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        # An overridden deletion calls an operation, which records.
        if type(self).delete_model is admin.ModelAdmin.delete_model:
            _record_objects("delete", queryset, "")
        return super().log_deletions(request, queryset)


class RecordedSite(admin.AdminSite):
    """Mixes `Recorded` into every page that is registered."""

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        base = admin_class or admin.ModelAdmin
        super().register(model_or_iterable, type(base.__name__, (Recorded, base), {}), **options)


class RecordedAdminConfig(SimpleAdminConfig):
    """In the place of Django's own."""

    default_site = "datamodel.audit.site.RecordedSite"


def _record_objects(verb: str, objects: Iterable[Model], message: Any) -> None:
    if acting.current().recorded:
        return
    for found in objects:
        details: dict[str, object] = {"verb": verb, "id": str(found.pk)}
        if message:
            details["message"] = message if isinstance(message, (str, list)) else str(message)
        record(Action.ADMIN, f"{found._meta.label_lower}: {found}", details=details)
