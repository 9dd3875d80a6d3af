"""The operator's door: what is open, whom it was told, and "I am at it" and "it is over"."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from datamodel.admin import TableAdmin
from datamodel.alarms import operations
from datamodel.alarms.models import Alarm, AlarmDelivery


class AlarmDeliveryInline(admin.TabularInline):  # type: ignore[type-arg]  # the stub is generic, the class is not
    model = AlarmDelivery
    extra = 0
    can_delete = False
    fields = ["channel", "round", "attempts", "delivered_at", "next_try_at", "last_error"]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Alarm)
class AlarmAdmin(TableAdmin):
    list_display = ["kind", "subject", "text", "count", "raised_at", "last_at", "acknowledged_by", "cleared_at"]
    list_filter = [("cleared_at", admin.EmptyFieldListFilter), "kind", ("acknowledged_at", admin.EmptyFieldListFilter)]
    ordering = ["-id"]
    inlines = [AlarmDeliveryInline]
    actions = ["acknowledge", "clear"]
    uri_column = "subject"
    search_help_text = "The start of a subject"

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and request.user.is_superuser)

    @admin.action(description="Acknowledge: I am at it, tell nobody again", permissions=["decide"])
    def acknowledge(self, request: HttpRequest, queryset: QuerySet[Alarm]) -> None:
        count = operations.acknowledge_alarms(alarms=queryset, by=request.user.get_username())
        self.message_user(request, f"{count} acknowledged", messages.SUCCESS)

    @admin.action(description="Clear: it is over", permissions=["decide"])
    def clear(self, request: HttpRequest, queryset: QuerySet[Alarm]) -> None:
        count = operations.clear_alarms(alarms=queryset, by=request.user.get_username())
        self.message_user(request, f"{count} cleared", messages.SUCCESS)
