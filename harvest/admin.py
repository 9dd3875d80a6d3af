"""The operator's door to the exchange: peers, how far we have harvested them, and what needs an eye."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from datamodel import brake, remotes
from datamodel.admin import TableAdmin
from datamodel.errors import InvalidRequestError, InvalidUriError, StateConflictError
from datamodel.models import (
    BrakeRule,
    DeletionBrake,
    FeedReader,
    HarvestConflict,
    HarvestRejection,
    HarvestState,
    RemoteInventory,
)
from datamodel.pairing.admin import revoke_page
from datamodel.uris import Namespace
from harvest import readers, tasks


class RemoteForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A peer; its token goes in and never comes out."""

    new_token = forms.CharField(
        required=False,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text="The API token that it gave us, with the grants harvest and read; empty: keep the one we have",
    )

    class Meta:
        model = RemoteInventory
        fields = ["name", "role", "url", "enabled"]

    def clean_url(self) -> str:
        try:
            return remotes.checked_url(self.cleaned_data["url"])
        except InvalidRequestError as error:
            raise forms.ValidationError(error.detail) from error

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        known = RemoteInventory.objects.filter(pk=self.instance.pk).first()
        if known is not None and "role" in cleaned:
            try:
                remotes.refuse_against_pairing(known, role=cleaned["role"], enabled=cleaned["enabled"])
            except StateConflictError as error:
                raise forms.ValidationError(error.detail) from error
        return cleaned


@admin.register(DeletionBrake)
class DeletionBrakeAdmin(TableAdmin):
    """Who has removed how much today, whom the brake has stopped, and the way on."""

    list_display = ["source", "namespace", "day", "removed", "engaged_at", "reason", "released_until"]
    ordering = ["source", "namespace"]
    search_help_text = "The start of a source"
    actions = ["release"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeletionBrake], search_term: str
    ) -> tuple[QuerySet[DeletionBrake], bool]:
        return queryset.filter(source__startswith=search_term.strip()), False

    def has_release_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("datamodel.change_deletionbrake"))

    @admin.action(description="It is meant: let these pass for 24 hours", permissions=["release"])
    def release(self, request: HttpRequest, queryset: QuerySet[DeletionBrake]) -> None:
        count = brake.release(brakes=queryset)
        self.message_user(request, f"{count} may pass for 24 hours; their harvest goes on by itself", messages.SUCCESS)


class BrakeRuleForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """How much of a namespace may be removed in a day."""

    class Meta:
        model = BrakeRule
        fields = ["namespace", "most_count", "most_percent", "note"]

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise forms.ValidationError(error.detail) from error


@admin.register(BrakeRule)
class BrakeRuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = BrakeRuleForm
    list_display = ["namespace", "most_count", "most_percent", "note"]
    ordering = ["namespace"]


@admin.register(RemoteInventory)
class RemoteInventoryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = RemoteForm
    list_display = [
        "name",
        "role",
        "url",
        "enabled",
        "paired_at",
        "revoked_at",
        "last_contact_at",
        "last_error_at",
        "last_error",
    ]
    list_filter = ["role", "enabled"]
    ordering = ["name"]
    fields = ["name", "role", "url", "new_token", "enabled", "inventory_id", "site", "paired_at", "revoked_at"]
    fields += ["last_contact_at", "last_error_at", "last_error", "lease_until"]
    actions = ["harvest_now", "revoke"]
    readonly_fields = [
        "inventory_id",
        "site",
        "paired_at",
        "revoked_at",
        "last_contact_at",
        "last_error_at",
        "last_error",
        "lease_until",
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: RemoteInventory | None = None) -> list[str]:
        # The name is how the environment and the command mean the same peer again.
        return [*self.readonly_fields, "name"] if obj is not None else list(self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: RemoteInventory, form: RemoteForm, change: bool) -> None:  # noqa: FBT001  # Django's signature
        token = form.cleaned_data["new_token"] or (None if change else "")
        saved = remotes.save_remote(name=obj.name, role=obj.role, url=obj.url, token=token, enabled=obj.enabled)
        obj.pk = saved.pk

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[Any, int], set[Any], list[Any]]:
        # Cursors, keys and findings of a peer go with it, though none of them can be deleted by itself.
        to_delete, counts, _, protected = super().get_deleted_objects(objs, request)
        return list(to_delete), counts, set(), list(protected)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("datamodel.add_pairinginvitation"))

    @admin.action(description="Revoke: these lose everything at once", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[RemoteInventory]) -> HttpResponse | None:
        chosen = list(queryset.order_by("name"))
        kept = [("action", "revoke"), *((ACTION_CHECKBOX_NAME, str(remote.pk)) for remote in chosen)]
        return revoke_page(self, request, [remote.name for remote in chosen], kept)

    @admin.action(description="Harvest the selected inventories now", permissions=["change"])
    def harvest_now(self, request: HttpRequest, queryset: QuerySet[RemoteInventory]) -> None:
        for remote in queryset:
            if not remote.enabled:
                self.message_user(request, f"{remote.name} is switched off", messages.WARNING)
            elif tasks.request_harvest(remote.name):
                self.message_user(request, f"{remote.name} will be harvested", messages.SUCCESS)
            else:
                self.message_user(request, "the broker does not answer; beat asks again later", messages.ERROR)


@admin.register(HarvestState)
class HarvestStateAdmin(TableAdmin):
    list_display = ["remote", "name", "selector", "is_complete", "rows", "updated_at"]
    list_display_links = ["name"]
    list_select_related = ["remote"]
    list_filter = ["remote", "name", "is_complete"]
    ordering = ["remote__name", "name", "selector"]
    uri_column = "name"
    search_help_text = "The start of a stream's name, or an id"
    actions = ["rewind"]

    @admin.action(description="Harvest the selected streams from the start", permissions=["rewind"])
    def rewind(self, request: HttpRequest, queryset: QuerySet[HarvestState]) -> None:
        count = remotes.rewind(states=queryset)
        self.message_user(request, f"{count} streams begin again with the next harvest", messages.SUCCESS)

    def has_rewind_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("datamodel.change_harveststate"))


@admin.register(FeedReader)
class FeedReaderAdmin(TableAdmin):
    """Who reads our feed; events wait until all of them have passed."""

    list_display = ["caller", "inventory_id", "epoch", "txid", "asked_at", "retired_at"]
    ordering = ["caller", "inventory_id"]
    uri_column = "caller"
    search_help_text = "The start of a caller's name"
    actions = ["retire"]

    @admin.action(description="Retire: events need not wait for these any more", permissions=["retire"])
    def retire(self, request: HttpRequest, queryset: QuerySet[FeedReader]) -> None:
        count = readers.retire_readers(readers=queryset)
        self.message_user(request, f"{count} retired; should they come back, they must reconcile", messages.SUCCESS)

    def has_retire_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)


class FindingAdmin(TableAdmin):
    """Listed until an operator has seen it."""

    actions = ["mark_seen"]
    list_filter = [("seen_at", admin.EmptyFieldListFilter)]

    @admin.action(description="Mark as seen", permissions=["mark"])
    def mark_seen(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = remotes.mark_seen(found=queryset, now=datetime.now(UTC))
        self.message_user(request, f"{count} marked as seen", messages.SUCCESS)

    def has_mark_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"datamodel.change_{self.opts.model_name}"))


@admin.register(HarvestConflict)
class HarvestConflictAdmin(FindingAdmin):
    list_display = ["uri", "loser_site", "loser_length", "loser_last_modified", "same_content", "decided_at", "seen_at"]
    list_select_related = ["loser_site"]
    ordering = ["-decided_at"]
    search_help_text = "The start of a uri, or an id"


@admin.register(HarvestRejection)
class HarvestRejectionAdmin(FindingAdmin):
    list_display = ["reason", "remote", "stream", "row_id", "rejected_at", "seen_at"]
    list_select_related = ["remote"]
    ordering = ["-rejected_at"]
    uri_column = "reason"
    search_help_text = "The start of a reason, or an id"
