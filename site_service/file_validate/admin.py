"""The report for operators: runs and findings to look at, "apply" for what is right; quarantine to give back or purge."""

from __future__ import annotations

from collections import Counter

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from datamodel.admin import TableAdmin
from datamodel.errors import DeletionBrakeError, InventoryError
from site_service.file_validate import actors, quarantine
from site_service.file_validate.models import QuarantinedObject, ValidationFinding, ValidationRun
from site_service.file_validate.operations import apply_finding, foresee
from site_service.storage.registry import get_store

# A request must end; for more there is `manage.py validate_files --apply`.
_AT_ONCE = 200


class ReasonForm(ActionForm):
    """An action that cannot be undone asks why."""

    reason = forms.CharField(required=False, max_length=200, label="Reason (to remove):")


class DecidingAdmin(TableAdmin):
    """A table whose rows a superuser may decide about."""

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}"))

    def is_too_much(
        self, request: HttpRequest, queryset: QuerySet[ValidationFinding] | QuerySet[QuarantinedObject]
    ) -> bool:
        """Says so if it is."""
        count = queryset.count()
        if count > _AT_ONCE:
            text = f"{count} are selected; at most {_AT_ONCE} are decided here at a time. Nothing was done: use the command."
            self.message_user(request, text, messages.ERROR)
        return count > _AT_ONCE

    def tell(self, request: HttpRequest, outcomes: Counter[str]) -> None:
        """How often it ended how."""
        for outcome, count in outcomes.items():
            self.message_user(request, f"{count}: {outcome}", messages.INFO)


@admin.register(ValidationRun)
class ValidationRunAdmin(TableAdmin):
    list_display = [
        "__str__",
        "state",
        "next_bucket",
        "artifacts",
        "objects_seen",
        "size",
        "counts",
        "finished_at",
        "last_error",
    ]
    ordering = ["-started_at"]
    uri_column = None
    search_help_text = "An id"

    @admin.display(description="bytes")
    def size(self, run: ValidationRun) -> str:
        return filesizeformat(run.bytes_seen)


@admin.register(ValidationFinding)
class ValidationFindingAdmin(DecidingAdmin):
    list_display = ["id", "label", "action", "uri", "size", "storage_id", "detail", "seen_at", "state", "decided_by"]
    list_filter = ["state", "label", "policy"]
    ordering = ["-id"]
    actions = ["apply"]
    search_help_text = "The start of a uri"

    @admin.display(description="bytes")
    def size(self, finding: ValidationFinding) -> str:
        return filesizeformat(finding.content_length) if finding.content_length is not None else "-"

    @admin.action(description="Apply, each after a second look", permissions=["decide"])
    def apply(self, request: HttpRequest, queryset: QuerySet[ValidationFinding]) -> None:
        if self.is_too_much(request, queryset):
            return
        try:
            foresee(findings=queryset.filter(state=ValidationFinding.State.OPEN))
        except DeletionBrakeError as error:
            self.message_user(request, error.detail, messages.ERROR)
            return
        outcomes = Counter[str]()
        for finding_id in list(queryset.order_by("id").values_list("id", flat=True)):
            try:
                applied = apply_finding(
                    store=get_store(), finding_id=finding_id, decided_by=request.user.get_username()
                )
                outcomes[applied.reason] += 1
            except InventoryError as error:
                outcomes[error.detail] += 1
        self.tell(request, outcomes)


@admin.register(QuarantinedObject)
class QuarantinedObjectAdmin(DecidingAdmin):
    list_display = [
        "__str__",
        "size",
        "storage_id",
        "written_at",
        "quarantined_at",
        "quarantined_by",
        "state",
        "decided_by",
    ]
    list_filter = ["state", "label"]
    ordering = ["-quarantined_at"]
    actions = ["restore", "purge"]
    action_form = ReasonForm
    search_help_text = "The start of a uri, or an id"

    @admin.display(description="bytes")
    def size(self, held: QuarantinedObject) -> str:
        return filesizeformat(held.content_length) if held.content_length is not None else "-"

    @admin.action(description="Give the bytes back", permissions=["decide"])
    def restore(self, request: HttpRequest, queryset: QuerySet[QuarantinedObject]) -> None:
        if self.is_too_much(request, queryset):
            return
        outcomes, by = Counter[str](), request.user.get_username()
        for object_id in list(queryset.order_by("id").values_list("id", flat=True)):
            try:
                quarantine.restore_quarantined(store=get_store(), object_id=object_id, decided_by=by)
                outcomes["given back"] += 1
            except InventoryError as error:
                outcomes[error.detail] += 1
        self.tell(request, outcomes)

    @admin.action(description="Remove the bytes for ever", permissions=["decide"])
    def purge(self, request: HttpRequest, queryset: QuerySet[QuarantinedObject]) -> None:
        if self.is_too_much(request, queryset):
            return
        by, chosen = request.user.get_username(), list(queryset.order_by("id").values_list("id", flat=True))
        reason = request.POST.get("reason", "").strip()
        if not reason:
            self.message_user(request, "Say why: these bytes will be gone for ever. Nothing was done.", messages.ERROR)
            return
        removing = [one for one in chosen if quarantine.decide_purge(object_id=one, decided_by=by, reason=reason)]
        actors.ring(removing)
        refused = len(chosen) - len(removing)
        self.tell(request, Counter({"are being removed": len(removing), "stay: in use, or decided already": refused}))
