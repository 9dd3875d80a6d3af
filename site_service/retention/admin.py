"""Retention rules, and undelete from the list of what is retired."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from datamodel import operations
from datamodel.admin import RetiredArtifactAdmin
from datamodel.errors import ArtifactNotFoundError, InvalidUriError, RaceLostError, StateConflictError
from datamodel.models import RetiredArtifact
from datamodel.uris import Namespace
from site_service.retention import queries
from site_service.retention.models import RetentionRule

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
