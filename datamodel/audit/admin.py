"""The operator's door: entries to look at and search; which reads are recorded."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from datamodel.admin import TableAdmin, searched
from datamodel.audit.models import AuditArchive, AuditEntry, AuditHead, AuditReadRule, AuditSeal
from datamodel.audit.rules import Action, Outcome
from datamodel.errors import InvalidUriError
from datamodel.rows import database_now
from datamodel.uris import Namespace

_PERIODS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=31),
}


class SinceFilter(admin.SimpleListFilter):
    """How far back; the index of times makes it quick."""

    title = "time"
    parameter_name = "since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, f"the last {name}") for name in _PERIODS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        period = _PERIODS.get(self.value() or "")
        return queryset if period is None else queryset.filter(at__gte=database_now() - period)


class ActionFilter(admin.SimpleListFilter):
    """By the words there are: looking for those in the table would read all of it."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(action.value, action.value) for action in Action]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        return queryset.filter(action=self.value()) if self.value() else queryset


class OutcomeFilter(admin.SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(outcome.value, outcome.value) for outcome in Outcome]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEntry]) -> QuerySet[AuditEntry]:
        return queryset.filter(outcome=self.value()) if self.value() else queryset


@admin.register(AuditEntry)
class AuditEntryAdmin(TableAdmin):
    list_display = ["at", "who", "method", "address", "action", "subject", "outcome", "times", "reason"]
    list_filter = [SinceFilter, ActionFilter, OutcomeFilter]
    ordering = ["-id"]
    search_help_text = "The start of a uri or name; by:NAME for what somebody did; #NUMBER for an entry"
    fields = [
        "id",
        "at",
        "who",
        "method",
        "address",
        "action",
        "subject",
        "outcome",
        "reason",
        "request_id",
        "count",
        "shown_details",
        "txid",
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if term.startswith("by:"):
            return queryset.filter(who=term.removeprefix("by:").strip()), False
        if term.startswith("#") and term[1:].isdigit():
            return queryset.filter(id=int(term[1:19])), False
        return searched(queryset, term, "subject"), False

    @admin.display(description="times")
    def times(self, entry: AuditEntry) -> str:
        return str(entry.count) if entry.count > 1 else ""

    @admin.display(description="details")
    def shown_details(self, entry: AuditEntry) -> SafeString:
        return format_html("<pre>{}</pre>", json.dumps(entry.details, indent=1))


@admin.register(AuditSeal)
class AuditSealAdmin(TableAdmin):
    list_display = ["number", "at", "entries", "hash"]
    ordering = ["-number"]
    uri_column = None
    search_fields = []
    fields = ["number", "at", "entries", "to_txid", "to_id", "hash"]

    @admin.display(description="SHA-256")
    def hash(self, seal: AuditSeal) -> str:
        return bytes(seal.digest).hex()


@admin.register(AuditHead)
class AuditHeadAdmin(TableAdmin):
    list_display = ["seal", "at", "key_id"]
    ordering = ["-id"]
    uri_column = None
    search_fields = []
    fields = ["seal", "at", "key_id", "statement"]


@admin.register(AuditArchive)
class AuditArchiveAdmin(TableAdmin):
    list_display = ["name", "from_seal", "to_seal", "entries", "at"]
    ordering = ["-to_seal"]
    uri_column = None
    search_fields = []
    fields = ["name", "from_seal", "to_seal", "entries", "sha256", "at"]


class AuditReadRuleForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A namespace in canonical form."""

    class Meta:
        model = AuditReadRule
        fields = ["namespace", "percent", "note"]

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"].strip()).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error


@admin.register(AuditReadRule)
class AuditReadRuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """The longest namespace decides; without a rule no read is recorded."""

    form = AuditReadRuleForm
    list_display = ["namespace", "percent", "note"]
    ordering = ["namespace"]
