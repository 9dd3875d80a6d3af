"""The operator's door to pairing: make a code, which is shown once; accept one; make codes void."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import URLPattern, path, reverse

from datamodel.errors import InventoryError
from datamodel.models import PairingInvitation
from datamodel.pairing import client, operations

_LIST = "admin:datamodel_pairinginvitation_changelist"


class InvitationForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Whom a code is for."""

    hours = forms.FloatField(initial=1, min_value=0.1, max_value=operations.LONGEST_LIFETIME.total_seconds() / 3600)

    class Meta:
        model = PairingInvitation
        fields = ["name"]
        help_texts = {"name": "What the other inventory shall be called here"}

    def clean(self) -> dict[str, Any]:
        """Here, not when it is saved: what is refused is told at the form."""
        cleaned: dict[str, Any] = super().clean() or {}
        if not self.errors:
            try:
                self.invited = operations.invite(
                    name=cleaned["name"],
                    role=operations.other_role(),
                    lifetime=timedelta(hours=cleaned["hours"]),
                )
            except InventoryError as error:
                raise ValidationError(error.detail) from error
        return cleaned


class AcceptForm(forms.Form):
    """A code of another inventory."""

    code = forms.CharField(widget=forms.Textarea(attrs={"rows": 5, "cols": 80, "autocomplete": "off"}))
    name = forms.CharField(max_length=64, label="What it shall be called here")


@admin.register(PairingInvitation)
class PairingInvitationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Codes that were made here: never shown again, only whether somebody came with them."""

    form = InvitationForm
    list_display = ["name", "role", "created_at", "expires_at", "accepted_by", "accepted_at", "voided_at", "attempts"]
    ordering = ["-created_at"]
    search_fields = ["name"]
    actions = ["void"]

    def get_fields(self, request: HttpRequest, obj: PairingInvitation | None = None) -> list[Any]:
        return list(self.list_display) if obj is not None else ["name", "hours"]

    def has_change_permission(self, request: HttpRequest, obj: PairingInvitation | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PairingInvitation | None = None) -> bool:
        return False

    def save_model(
        self,
        request: HttpRequest,
        obj: PairingInvitation,
        form: InvitationForm,
        change: bool,  # noqa: FBT001  # Django's signature
    ) -> None:
        obj.pk = form.invited.invitation_id
        # The code lives in this request only: a message would be kept in a cookie or session.
        request.invited = form.invited  # type: ignore[attr-defined]

    def response_add(
        self, request: HttpRequest, obj: PairingInvitation, post_url_continue: str | None = None
    ) -> HttpResponse:
        invited: operations.Invited = request.invited  # type: ignore[attr-defined]
        facts = self.admin_site.each_context(request) | {
            "title": f"The pairing code for {obj.name}",
            "code": invited.code,
            "expires_at": invited.expires_at,
            "list_url": reverse(_LIST),
        }
        return render(request, "admin/datamodel/pairinginvitation/code.html", facts)

    def get_urls(self) -> list[URLPattern]:
        accept = path("accept/", self.admin_site.admin_view(self.accept), name="datamodel_pairinginvitation_accept")
        return [accept, *super().get_urls()]

    def accept(self, request: HttpRequest) -> HttpResponse:
        """Pair with the inventory whose code is entered."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AcceptForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                remote = client.accept(code=form.cleaned_data["code"], name=form.cleaned_data["name"])
            except InventoryError as error:
                form.add_error(None, error.detail)
            else:
                self.message_user(
                    request, f"Paired with the {remote.role} {remote.name} at {remote.url}", messages.SUCCESS
                )
                return HttpResponseRedirect(reverse("admin:datamodel_remoteinventory_changelist"))
        return form_page(
            self,
            request,
            form,
            title="Accept a pairing code",
            about="It was shown once by the other inventory. This one calls the address in it, and each then knows the other by its keys.",
            verb="Accept",
            list_url=reverse(_LIST),
        )

    @admin.action(description="Make the codes for these names void", permissions=["add"])
    def void(self, request: HttpRequest, queryset: QuerySet[PairingInvitation]) -> None:
        names = set(queryset.values_list("name", flat=True))
        count = sum(operations.void_invitations(name=name, now=datetime.now(UTC)) for name in names)
        self.message_user(request, f"{count} void; they open nothing any more", messages.SUCCESS)


class RevokeForm(forms.Form):
    """Why."""

    reason = forms.CharField(max_length=200)


def revoke_page(
    owner: admin.ModelAdmin[Any], request: HttpRequest, names: list[str], kept: list[tuple[str, str]]
) -> HttpResponse | None:
    """Asks for the reason, and then revokes these; None when that is done."""
    is_answer = "reason" in request.POST
    form = RevokeForm(request.POST if is_answer else None)
    if is_answer and form.is_valid():
        for name in names:
            operations.revoke(name=name, reason=form.cleaned_data["reason"])
        owner.message_user(request, f"Revoked: {', '.join(names)}", messages.SUCCESS)
        return None
    return form_page(
        owner,
        request,
        form,
        title="Revoke",
        about=f"{', '.join(names)} will lose everything at once: feeds, tokens, signed URLs; nothing is harvested from there, "
        "located there or counted there. Only a new pairing undoes it.",
        verb="Revoke",
        list_url=request.path,
        kept=kept,
    )


def form_page(
    owner: admin.ModelAdmin[Any],
    request: HttpRequest,
    form: forms.Form,
    *,
    title: str,
    about: str,
    verb: str,
    list_url: str,
    kept: list[tuple[str, str]] | None = None,
) -> HttpResponse:
    """One form, what it is about, and a way back."""
    facts = owner.admin_site.each_context(request) | {
        "title": title,
        "about": about,
        "form": form,
        "verb": verb,
        "kept": kept or [],
        "list_url": list_url,
    }
    return render(request, "admin/datamodel/pairinginvitation/form.html", facts)
