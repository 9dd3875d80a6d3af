"""The operator's door: the schedule, what was found damaged, and the record with its odd ends."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from datamodel.admin import TableAdmin
from datamodel.errors import InvalidUriError
from datamodel.uris import Namespace
from site_service.scrub import actors, queries
from site_service.scrub.models import CopyVerification, DamagedCopy, ScrubPolicy


class ScrubPolicyForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A rule of the schedule."""

    class Meta:
        model = ScrubPolicy
        fields = ("namespace", "period_seconds", "bytes_per_second", "from_hour", "until_hour", "note")

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error


@admin.register(ScrubPolicy)
class ScrubPolicyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """The schedule, with how far it is kept; a change reaches every copy within some ticks."""

    form = ScrubPolicyForm
    list_display = ("namespace", "period_seconds", "bytes_per_second", "from_hour", "until_hour", "note")
    change_list_template = "admin/scrub/scrubpolicy/change_list.html"

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        facts = {
            "standings": queries.standings(queries.configured_schedule()),
            "outcomes": queries.outcomes(),
            "damaged": queries.damaged_counts(),
        }
        return super().changelist_view(request, {**(extra_context or {}), **facts})


@admin.register(DamagedCopy)
class DamagedCopyAdmin(TableAdmin):
    """Findings, the newest first; with `unrepairable since` no good copy was found anywhere."""

    list_display = (
        "uri",
        "finding",
        "found_by",
        "found_at",
        "state",
        "state_at",
        "unrepairable_since",
        "repair_reason",
    )
    list_filter = ("state", "finding", ("unrepairable_since", admin.EmptyFieldListFilter))
    ordering = ("-found_at",)
    actions = ("read_again",)

    @admin.action(description="Read the damaged bytes again", permissions=["view"])
    def read_again(self, request: HttpRequest, queryset: QuerySet[DamagedCopy]) -> None:
        chosen = list(queryset.filter(state=DamagedCopy.State.DAMAGED).values_list("id", flat=True))
        actors.read_damaged.send([str(damaged_id) for damaged_id in chosen])
        self.message_user(
            request, f"{len(chosen)} are read again; those that are good come back into service.", messages.SUCCESS
        )


@admin.register(CopyVerification)
class CopyVerificationAdmin(TableAdmin):
    """The record."""

    list_display = ("storage_id", "namespace", "result", "verified_at", "next_at", "failures")
    list_filter = ("result",)
    search_fields: ClassVar[list[str]] = []
    ordering = ("id",)
