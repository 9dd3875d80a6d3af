"""The operator's door: snapshots to look at, take and delete; schedules to change."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from datamodel.admin import TableAdmin
from datamodel.errors import InvalidUriError, StateConflictError
from datamodel.snapshots import operations, queries, rules
from datamodel.snapshots.models import PinSource, Snapshot, SnapshotAcknowledgement, SnapshotSchedule
from datamodel.uris import Namespace


class AcknowledgementInline(admin.TabularInline):  # type: ignore[type-arg]  # the stub is generic, the class is not
    model = SnapshotAcknowledgement
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Snapshot | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Snapshot | None = None) -> bool:
        return False


@admin.register(Snapshot)
class SnapshotAdmin(TableAdmin):
    list_display = ["__str__", "namespace", "moment", "state", "artifacts", "content", "waiting_for", "is_orphan"]
    list_filter = ["state", "is_orphan"]
    ordering = ["-moment", "-id"]
    uri_column = "namespace"
    search_help_text = "The start of a namespace, or an id"
    exclude = ["tree"]
    inlines = [AcknowledgementInline]
    actions = ["release"]

    @admin.display(description="size")
    def content(self, snapshot: Snapshot) -> str:
        return filesizeformat(snapshot.size)

    @admin.display(description="waiting for")
    def waiting_for(self, snapshot: Snapshot) -> str:
        return ", ".join(queries.awaited(snapshot)) or "-"

    def has_release_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    @admin.action(description="Delete the selected: what only they keep may go", permissions=["release"])
    def release(self, request: HttpRequest, queryset: QuerySet[Snapshot]) -> None:
        for snapshot in queryset:
            try:
                operations.release_snapshot(snapshot=snapshot)
                self.message_user(request, f"{snapshot} is deleted", messages.SUCCESS)
            except StateConflictError as error:
                self.message_user(request, error.detail, messages.ERROR)


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    class Meta:
        model = SnapshotSchedule
        fields = ("name", "namespace", "hourly", "daily", "monthly", "yearly", "enabled")

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not rules.is_name(name):
            raise ValidationError("use letters, digits, dots, hyphens and underscores")
        return name

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error


@admin.register(SnapshotSchedule)
class SnapshotScheduleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = ScheduleForm
    list_display = ("name", "namespace", "hourly", "daily", "monthly", "yearly", "enabled", "last_period")
    search_fields = ("name", "namespace")


@admin.register(PinSource)
class PinSourceAdmin(TableAdmin):
    list_display = ["remote", "url", "heard_until", "heard_at"]
    ordering = ["remote_id"]
    uri_column = None
    search_fields: ClassVar[list[str]] = []
