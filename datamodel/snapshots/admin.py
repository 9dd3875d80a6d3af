"""The operator's door: snapshots to look at, take and delete; schedules to change."""

from __future__ import annotations

from typing import Any, ClassVar

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
from datamodel.snapshots.rules import State
from datamodel.uris import Namespace


class _NamedForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A name and a namespace that the rules take."""

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


class SnapshotForm(_NamedForm):
    class Meta:
        model = Snapshot
        fields = ("name", "namespace")

    def clean_name(self) -> str:
        name = super().clean_name()
        if Snapshot.objects.filter(name=name, source="").exclude(state=State.RELEASED).exists():
            raise ValidationError("there is a snapshot of this name")
        return name


class ScheduleForm(_NamedForm):
    class Meta:
        model = SnapshotSchedule
        fields = ("name", "namespace", "hourly", "daily", "monthly", "yearly", "enabled")


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
    form = SnapshotForm
    actions = ["release"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def get_fields(self, request: HttpRequest, obj: Snapshot | None = None) -> Any:
        return ["name", "namespace"] if obj is None else super().get_fields(request, obj)

    def get_inlines(self, request: HttpRequest, obj: Snapshot | None) -> list[Any]:
        return [] if obj is None else [AcknowledgementInline]

    def save_model(self, request: HttpRequest, obj: Snapshot, form: Any, change: bool) -> None:  # noqa: FBT001  # a hook's signature
        """A new one is taken, at this moment."""
        del form, change
        taken = operations.create_snapshot(
            name=obj.name, namespace=Namespace(obj.namespace), created_by=request.user.get_username()
        )
        obj.id = taken.id

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
                self.message_user(request, f"deleted: {snapshot}", messages.SUCCESS)
            except StateConflictError as error:
                self.message_user(request, error.detail, messages.ERROR)


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
