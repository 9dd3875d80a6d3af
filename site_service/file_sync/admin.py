"""The queue for operators: what is missing, why, and "try now"."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from site_service.file_sync import actors, attempts
from site_service.file_sync.models import SyncAttempt
from site_service.storage.registry import get_store


@admin.register(SyncAttempt)
class SyncAttemptAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    list_display = (
        "uri",
        "content_length",
        "priority",
        "is_repair",
        "attempts",
        "last_reason",
        "next_try_at",
        "lease_until",
    )
    list_filter = ("last_reason", "is_repair")
    search_fields = ("uri__startswith", "last_error")
    ordering = ("-priority", "next_try_at", "artifact_id")
    actions = ("try_now",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SyncAttempt | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SyncAttempt | None = None) -> bool:
        return False

    @admin.action(description="Try now", permissions=["view"])
    def try_now(self, request: HttpRequest, queryset: QuerySet[SyncAttempt]) -> None:
        hastened = attempts.try_now(list(queryset.values_list("artifact_id", flat=True)))
        actors.ring(batches=settings.INVENTORY_SYNC_THREADS, store=get_store())
        self.message_user(request, f"{hastened} artifacts are due now.", messages.SUCCESS)
