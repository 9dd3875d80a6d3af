"""Edit the policy; what a change would do is counted and must be confirmed before it is saved."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from datamodel.errors import InvalidUriError
from datamodel.uris import Namespace
from site_service.policy import queries
from site_service.policy.models import SyncPolicy
from site_service.policy.nudge import fetch_the_past
from site_service.policy.operations import remove_policy, set_policy
from site_service.policy.queries import PolicyPreview
from site_service.policy.rules import Rule


def described(preview: PolicyPreview) -> str:
    """What the change would do, in one sentence for the operator."""
    return (
        f"This turns {len(preview.widened)} namespaces wanted (known here and to be pulled now: {preview.gained} artifacts, "
        f"{preview.gained_bytes} bytes; their past is harvested afterwards) and {len(preview.narrowed)} unwanted "
        f"({preview.dropped} unstored artifacts are dropped; {preview.kept} stored ones, {preview.kept_bytes} bytes, stay)."
    )


class SyncPolicyForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A rule; `confirm` says that the counted effects are meant."""

    confirm = forms.BooleanField(required=False, help_text="Save although this changes what is wanted here.")

    class Meta:
        model = SyncPolicy
        fields = ("namespace", "wanted", "priority", "note")

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        namespace = self.instance.namespace if self.instance.pk else values.get("namespace")
        if not self.errors and namespace and not values["confirm"]:
            old = queries.current_policy()
            rule = Rule(Namespace(namespace), values["wanted"], values["priority"] or 0)
            preview = queries.preview(old, old.changed(rule))
            if preview.widened or preview.narrowed:
                raise ValidationError(f"{described(preview)} Tick “confirm” and save again if that is meant.")
        return values


@admin.register(SyncPolicy)
class SyncPolicyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = SyncPolicyForm
    list_display = ("namespace", "wanted", "priority", "note")
    search_fields = ("namespace", "note")

    def get_readonly_fields(self, request: HttpRequest, obj: SyncPolicy | None = None) -> tuple[str, ...]:
        return ("namespace",) if obj else ()

    def save_model(self, request: HttpRequest, obj: SyncPolicy, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        change_made = set_policy(
            namespace=Namespace(obj.namespace), wanted=obj.wanted, priority=obj.priority, note=obj.note
        )
        fetch_the_past(change_made)
        obj.pk = SyncPolicy.objects.get(namespace=obj.namespace).pk

    def delete_model(self, request: HttpRequest, obj: SyncPolicy) -> None:
        fetch_the_past(remove_policy(namespace=Namespace(obj.namespace)))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[SyncPolicy]) -> None:
        for namespace in queryset.values_list("namespace", flat=True):
            fetch_the_past(remove_policy(namespace=Namespace(namespace)))
