"""How many copies each namespace keeps."""

from __future__ import annotations

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError

from datamodel.errors import InvalidUriError
from datamodel.uris import Namespace
from global_inventory.releases.models import ReleaseRule


class ReleaseRuleForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    class Meta:
        model = ReleaseRule
        fields = ("namespace", "copies", "note")

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            raise ValidationError(error.detail) from error


@admin.register(ReleaseRule)
class ReleaseRuleAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    form = ReleaseRuleForm
    list_display = ("namespace", "copies", "note")
    search_fields = ("namespace", "note")
