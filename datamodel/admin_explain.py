"""The operator's door to reasons: why somebody may (not) do something, and what a token may do at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.models import AbstractUser
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from datamodel import auth, explanations, tokens
from datamodel.admin_fields import LinesField
from datamodel.errors import InventoryError
from datamodel.explanations import Explained
from datamodel.grants import NAMESPACE_GRANTS, Grant
from datamodel.models import ApiToken
from datamodel.permissions import ANONYMOUS, may_any
from datamodel.uris import ArtifactUri

EXPLAIN_NAME = "datamodel_namespacegrant_explain"


class ExplainForm(forms.Form):
    """A question, and with `is_valid` its answer in `explained`."""

    caller = LinesField(
        initial=[ANONYMOUS],
        help_text="anonymous, or the principals of one caller: user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN; one "
        "per line. A token brings its rights and limits, a user of this admin its groups",
    )
    operation = forms.ChoiceField(choices=[(grant.value, grant.value) for grant in NAMESPACE_GRANTS], initial="read")
    uri = forms.CharField(
        widget=forms.TextInput(attrs={"size": 80}), help_text="As cadc:CFHT/x.fits; there need not be such an artifact"
    )
    explained: Explained | None = None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        try:
            self.explained = explanations.explain(
                names=cleaned["caller"] or [ANONYMOUS],
                grant=Grant(cleaned["operation"]),
                uri=ArtifactUri.parse(cleaned["uri"]),
            )
        except InventoryError as error:
            raise ValidationError(error.detail) from error
        return cleaned


def explain_page(site: admin.AdminSite, request: HttpRequest) -> HttpResponse:
    """A form and its answer; for whoever may ask over HTTP, too. Nothing is changed, so the question is in the address."""
    if not may_any(auth.caller_of_user(cast("AbstractUser", request.user)), explanations.ASKED_BY):
        raise PermissionDenied("this needs the grant 'audit' or 'operate'")
    is_asked = "uri" in request.GET
    initial = {"caller": request.GET.getlist("caller") or [ANONYMOUS]}
    form = ExplainForm(request.GET) if is_asked else ExplainForm(initial=initial)
    facts = site.each_context(request) | {
        "title": "Why may somebody (not) do something?",
        "form": form,
        "explained": form.explained if is_asked and form.is_valid() else None,
        "list_url": reverse("admin:datamodel_namespacegrant_changelist"),
    }
    return HttpResponse(render_to_string("admin/datamodel/explain.html", facts, request))


def standing_of(token: ApiToken) -> SafeString:
    """What a token may do at all, and from where it has that."""
    asked = f"{reverse(f'admin:{EXPLAIN_NAME}')}?{urlencode({'caller': f'token:{token.name}'})}"
    now = datetime.now(UTC)
    facts = {
        "over": tokens.why_over(token, now=now),
        "standings": explanations.standings_of(token, now=now),
        "explain_url": asked,
    }
    return render_to_string("admin/datamodel/apitoken/standing.html", facts)
