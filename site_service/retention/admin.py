"""Retention rules, undelete from the list of what is retired, and runs of retire."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat

from datamodel import operations
from datamodel.admin import RetiredArtifactAdmin, TableAdmin
from datamodel.errors import (
    ArtifactNotFoundError,
    DeletionBrakeError,
    InvalidUriError,
    RaceLostError,
    StateConflictError,
)
from datamodel.models import RetiredArtifact
from datamodel.uris import Namespace
from harvest.tasks import send_task
from site_service.retention import queries, retire
from site_service.retention.models import CopyRelease, RetentionRule, RetireRun

_SHOWN = 20


class RetentionRuleForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    class Meta:
        model = RetentionRule
        fields = ("namespace", "seconds", "note")

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error


@admin.register(RetentionRule)
class RetentionRuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = RetentionRuleForm
    list_display = ("namespace", "seconds", "note")
    search_fields = ("namespace", "note")


admin.site.unregister(RetiredArtifact)


@admin.register(RetiredArtifact)
class UndeletableAdmin(RetiredArtifactAdmin):
    """What is retired at this site, until when it is kept, and a way back."""

    list_display = ["uri", "state", "size", "born_at", "died_at", "kept_until"]
    actions = ["undelete"]

    @admin.display(description="kept until")
    def kept_until(self, retired: RetiredArtifact) -> str:
        if retired.state != RetiredArtifact.State.RETAINED:
            return "-"
        return f"{queries.retention().keeps_until(retired.uri, retired.died_at):%Y-%m-%d %H:%M} UTC"

    def has_undelete_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("datamodel.change_retiredartifact"))

    @admin.action(
        description="Undelete the selected (where no other content has the uri now)", permissions=["undelete"]
    )
    def undelete(self, request: HttpRequest, queryset: QuerySet[RetiredArtifact]) -> None:
        done, refused = 0, list[str]()
        for retired_id in queryset.values_list("id", flat=True):
            try:
                operations.undelete_artifact(retired_id=retired_id)
                done += 1
            except (ArtifactNotFoundError, StateConflictError, RaceLostError) as error:
                refused.append(error.detail)
        if done:
            self.message_user(request, f"{done} undeleted, each under a new id", messages.SUCCESS)
        for reason in refused[:_SHOWN]:
            self.message_user(request, reason, messages.ERROR)


def described(found: retire.RetirePreview) -> str:
    """What a run would do, in one sentence for the operator."""
    return (
        f"{found.files} files ({filesizeformat(found.bytes)}) are stored here under this namespace; {found.wanted_files} of them stay, "
        "because this site's policy wants them. Of the others those go that every global allows to go, which is asked only then."
        + (f" The brake would stop this: {found.brake}." if found.brake else "")
    )


class RetireRunForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A run; `confirm` says that the counted copies are meant."""

    confirm = forms.BooleanField(required=False, help_text="Drop them.")

    class Meta:
        model = RetireRun
        fields = ("namespace", "reason")

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not self.errors and not values["confirm"]:
            found = retire.preview(Namespace(values["namespace"]))
            raise ValidationError(f"{described(found)} Tick “confirm” and save again if that is meant.")
        if not self.errors:
            try:
                retire.refuse_braked(Namespace(values["namespace"]))
            except DeletionBrakeError as error:
                raise ValidationError(error.detail) from error
        return values


@admin.register(RetireRun)
class RetireRunAdmin(TableAdmin):
    """Runs of retire: begin one, look how far it is, cancel it."""

    list_display = ["namespace", "state", "files", "dropped_files", "size", "refused_files", "gone_files", "started_at"]
    ordering = ["-started_at"]
    uri_column = None
    search_help_text = "An id"
    actions = ["cancel"]
    form = RetireRunForm

    @admin.display(description="dropped")
    def size(self, run: RetireRun) -> str:
        return filesizeformat(run.dropped_bytes)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_superuser)

    def save_model(self, request: HttpRequest, obj: RetireRun, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        namespace, by = Namespace(obj.namespace), request.user.get_username()
        obj.pk = retire.begin_run(namespace=namespace, reason=obj.reason, started_by=by).pk
        obj.refresh_from_db()
        send_task("site_service.retention.tasks.advance_retirement")

    @admin.action(description="Cancel: nothing more goes", permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[RetireRun]) -> None:
        for run in queryset:
            try:
                retire.cancel_run(run_id=run.id)
                self.message_user(request, f"{run}: cancelled", messages.SUCCESS)
            except StateConflictError as error:
                self.message_user(request, error.detail, messages.ERROR)


@admin.register(CopyRelease)
class CopyReleaseAdmin(TableAdmin):
    """Copies of runs of retire: what went, what stays and why, what waits."""

    list_display = ["uri", "state", "reason", "detail", "size", "tries", "state_at", "run"]
    list_filter = ["state"]
    list_select_related = ["run"]
    ordering = ["run", "state", "uri"]
    # No index begins with the uri.
    uri_column = None
    search_help_text = "An id"

    @admin.display(description="size")
    def size(self, release: CopyRelease) -> str:
        return filesizeformat(release.content_length)
