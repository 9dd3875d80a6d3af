"""The operator's door to rights: API tokens, grants of namespaces, roles."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.safestring import SafeString

from datamodel import access, tokens
from datamodel.admin_explain import EXPLAIN_NAME, explain_page, standing_of
from datamodel.admin_fields import LinesField
from datamodel.errors import InventoryError
from datamodel.grants import Grant, Role
from datamodel.models import ApiToken, NamespaceGrant, RoleAssignment
from datamodel.tokens import METHODS, TokenLimits

_ROTATION_OVERLAP = timedelta(days=1)
_WHO = "user:NAME, group:NAME, token:NAME, issuer:NAME, dn:DN, inventory:NAME, or * for anybody known; one per line"


class ApiTokenForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A new token: whose it is, what it may do, how long."""

    grants = forms.MultipleChoiceField(
        choices=[(grant.value, grant.value) for grant in Grant],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="Everywhere, or below the prefixes. Without any it has what is granted to token:NAME",
    )
    prefixes = LinesField(help_text="Only below these namespaces, as cadc:CFHT/; one per line; empty: no limit")
    methods = forms.MultipleChoiceField(
        choices=[(method, method) for method in METHODS],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="Only by these; none: no limit",
    )
    expires_at = forms.DateTimeField(required=False, help_text="UTC; empty: until it is revoked")

    class Meta:
        model = ApiToken
        fields = ["name", "grants", "prefixes", "methods", "expires_at"]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        try:
            self.limits = TokenLimits.parse(cleaned.get("prefixes", []), cleaned.get("methods", []))
        except InventoryError as error:
            raise ValidationError({"prefixes": error.detail}) from error
        return cleaned


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Tokens are made, rotated and revoked here; a secret is shown once, a digest never."""

    form = ApiTokenForm
    list_display = ["name", "is_good", "granted", "limited", "created_at", "expires_at", "last_used_at", "revoked_at"]
    ordering = ["name"]
    search_fields = ["name"]
    actions = ["rotate", "revoke"]
    add_fields = ["name", "grants", "prefixes", "methods", "expires_at"]
    shown_fields = [
        "name",
        "granted",
        "limited",
        "created_at",
        "expires_at",
        "last_used_at",
        "previous_until",
        "revoked_at",
        "standing",
    ]

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> list[Any]:
        return self.shown_fields if obj is not None else self.add_fields

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    @admin.display(description="good", boolean=True)
    def is_good(self, token: ApiToken) -> bool:
        return not tokens.why_over(token, now=datetime.now(UTC))

    @admin.display(description="grants")
    def granted(self, token: ApiToken) -> str:
        return ", ".join(token.grants) or "-"

    @admin.display(description="limits")
    def limited(self, token: ApiToken) -> str:
        return ", ".join([*token.prefixes, *token.methods]) or "-"

    @admin.display(description="what it may do")
    def standing(self, token: ApiToken) -> SafeString:
        return standing_of(token)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: ApiTokenForm, change: bool) -> None:  # noqa: FBT001  # Django's signature
        # The secret lives in this request only: a message would be kept in a cookie or session.
        request.created_secret = tokens.create_api_token(  # type: ignore[attr-defined]
            name=obj.name,
            grants=frozenset(Grant(word) for word in form.cleaned_data["grants"]),
            now=datetime.now(UTC),
            expires_at=obj.expires_at,
            limits=form.limits,
        )
        obj.pk = ApiToken.objects.get(name=obj.name).pk

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        return self._shown(request, obj.name, request.created_secret)  # type: ignore[attr-defined]

    def _shown(self, request: HttpRequest, name: str, secret: str) -> HttpResponse:
        facts = self.admin_site.each_context(request) | {
            "title": f"The token of {name}",
            "secret": secret,
            "list_url": reverse("admin:datamodel_apitoken_changelist"),
        }
        return render(request, "admin/datamodel/apitoken/created.html", facts)

    @admin.action(
        description="Give the selected token a new secret (the old one is good for a day)", permissions=["add"]
    )
    def rotate(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> HttpResponse | None:
        names = list(queryset.values_list("name", flat=True))
        if len(names) != 1:
            self.message_user(request, "Select one token: its secret is shown once", messages.ERROR)
            return None
        try:
            secret = tokens.rotate_api_token(name=names[0], now=datetime.now(UTC), overlap=_ROTATION_OVERLAP)
        except InventoryError as error:
            self.message_user(request, error.detail, messages.ERROR)
            return None
        return self._shown(request, names[0], secret)

    @admin.action(description="Revoke the selected tokens", permissions=["add"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        count = tokens.revoke_api_tokens(tokens=queryset, now=datetime.now(UTC))
        self.message_user(request, f"{count} revoked; they open nothing any more", messages.SUCCESS)


class NamespaceGrantForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Who may do what below a prefix."""

    readers = LinesField(help_text=_WHO)
    writers = LinesField(help_text="They may read, too")
    deleters = LinesField()
    harvesters = LinesField()

    class Meta:
        model = NamespaceGrant
        fields = ["prefix", "anonymous_read", "readers", "writers", "deleters", "harvesters", "replaces", "note"]
        help_texts = {
            "prefix": "A namespace, as cadc:CFHT/; empty: everything",
            "anonymous_read": "Anyone reads, without credentials",
            "replaces": "What is granted for shorter prefixes does not hold below this one",
        }

    def clean_prefix(self) -> str:
        try:
            return access.canonical_prefix(self.cleaned_data["prefix"])
        except InventoryError as error:
            raise ValidationError(error.detail) from error

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        for name in ("readers", "writers", "deleters", "harvesters"):
            try:
                access.principals(cleaned.get(name, []))
            except InventoryError as error:
                self.add_error(name, error.detail)
        return cleaned


@admin.register(NamespaceGrant)
class NamespaceGrantAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """What is open to whom; every process knows at once."""

    form = NamespaceGrantForm
    list_display = ["__str__", "anonymous_read", "readers", "writers", "deleters", "harvesters", "replaces", "note"]
    ordering = ["prefix"]
    search_fields = ["prefix", "note"]

    def get_urls(self) -> list[URLPattern]:
        page = self.admin_site.admin_view(partial(explain_page, self.admin_site))
        return [path("explain/", page, name=EXPLAIN_NAME), *super().get_urls()]

    def get_readonly_fields(self, request: HttpRequest, obj: NamespaceGrant | None = None) -> list[str]:
        return ["prefix"] if obj is not None else []

    def save_model(self, request: HttpRequest, obj: NamespaceGrant, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        saved = access.save_grant(
            prefix=obj.prefix,
            anonymous_read=obj.anonymous_read,
            allowed={
                Grant.READ: obj.readers,
                Grant.WRITE: obj.writers,
                Grant.DELETE: obj.deleters,
                Grant.HARVEST: obj.harvesters,
            },
            replaces=obj.replaces,
            note=obj.note,
        )
        obj.pk = saved.pk

    def delete_model(self, request: HttpRequest, obj: NamespaceGrant) -> None:
        access.remove_grant(prefix=obj.prefix)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[NamespaceGrant]) -> None:
        for grant in queryset:
            access.remove_grant(prefix=grant.prefix)


class RoleAssignmentForm(forms.ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Who is an operator, and for what."""

    role = forms.ChoiceField(choices=[(role.value, role.value) for role in Role])

    class Meta:
        model = RoleAssignment
        fields = ["principal", "role", "note"]
        help_texts = {"principal": "user:NAME, group:NAME, token:NAME, issuer:NAME or dn:DN"}

    def clean_principal(self) -> str:
        try:
            (name,) = access.principals([self.cleaned_data["principal"]])
        except InventoryError as error:
            raise ValidationError(error.detail) from error
        return name


@admin.register(RoleAssignment)
class RoleAssignmentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Operators by role: assigned and withdrawn, never changed."""

    form = RoleAssignmentForm
    list_display = ["principal", "role", "note", "changed_at"]
    ordering = ["principal", "role"]
    search_fields = ["principal"]

    def has_change_permission(self, request: HttpRequest, obj: RoleAssignment | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: RoleAssignment, form: Any, change: bool) -> None:  # noqa: FBT001  # Django's signature
        obj.pk = access.assign_role(principal=obj.principal, role=Role(obj.role), note=obj.note).pk

    def delete_model(self, request: HttpRequest, obj: RoleAssignment) -> None:
        access.withdraw_role(principal=obj.principal, role=Role(obj.role))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[RoleAssignment]) -> None:
        for found in queryset:
            access.withdraw_role(principal=found.principal, role=Role(found.role))
