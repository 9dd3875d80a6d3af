"""Operators' doors to sites: health with "probe now", switches, rules by namespace."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import ForeignKey, QuerySet
from django.forms import ModelChoiceField, ModelForm
from django.http import HttpRequest

from datamodel.errors import InvalidUriError
from datamodel.models import RemoteInventory
from datamodel.uris import Namespace
from global_inventory.sites import operations, queries
from global_inventory.sites.models import SiteProbe, SiteRule, SiteSwitch


class _SiteAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """Only sites can be chosen where a peer is asked for."""

    def formfield_for_foreignkey(
        self,
        db_field: ForeignKey,  # type: ignore[type-arg]  # the stub is generic, the class is not
        request: HttpRequest | None,
        **kwargs: object,  # Django's own signature
    ) -> ModelChoiceField | None:  # type: ignore[type-arg]  # the stub is generic, the class is not
        if db_field.name == "remote":
            kwargs["queryset"] = RemoteInventory.objects.filter(role=RemoteInventory.Role.SITE).order_by("name")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)  # type: ignore[arg-type]  # passed through


@admin.register(SiteProbe)
class SiteProbeAdmin(_SiteAdmin):
    list_display = ["remote", "read_ok", "write_ok", "latency", "failures", "checked_at", "last_error"]
    list_filter = ["read_ok", "write_ok"]
    list_select_related = ["remote"]
    ordering = ["remote__name"]
    actions = ["probe_now", "probe_all"]

    @admin.display(description="latency (ms)", ordering="latency_ms")
    def latency(self, probe: SiteProbe) -> str:
        return "" if probe.latency_ms is None else f"{probe.latency_ms:.1f}"

    @admin.action(description="Probe the selected sites now")
    def probe_now(self, request: HttpRequest, queryset: QuerySet[SiteProbe]) -> None:
        self._probe(request, list(queryset.values_list("remote_id", flat=True)))

    @admin.action(description="Probe all sites now")
    def probe_all(self, request: HttpRequest, queryset: QuerySet[SiteProbe]) -> None:
        self._probe(request, None)

    def _probe(self, request: HttpRequest, remote_ids: list[int] | None) -> None:
        outcomes = operations.probe_sites(
            targets=queries.probe_targets(remote_ids), seconds=settings.INVENTORY_PROBE_TIMEOUT_SECONDS
        )
        queries.site_table_cache.clear()
        for name, probed in outcomes.items():
            words = "answers" if probed.read_ok else probed.error
            self.message_user(request, f"{name}: {words}", messages.SUCCESS if probed.read_ok else messages.WARNING)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: SiteProbe | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: SiteProbe | None = None) -> bool:
        return False


@admin.register(SiteSwitch)
class SiteSwitchAdmin(_SiteAdmin):
    list_display = ["remote", "read_only", "offline", "note"]
    list_editable = ["read_only", "offline", "note"]
    list_select_related = ["remote"]
    ordering = ["remote__name"]


class SiteRuleForm(ModelForm):  # type: ignore[type-arg]  # the stub is generic, the class is not
    """A namespace is checked where it is entered; a rule that matches nothing helps nobody."""

    class Meta:
        model = SiteRule
        fields = ["namespace", "remote", "direction", "kind"]

    def clean_namespace(self) -> str:
        try:
            return Namespace.parse(self.cleaned_data["namespace"]).value
        except InvalidUriError as error:
            self.add_error("namespace", error.detail)
            return ""


@admin.register(SiteRule)
class SiteRuleAdmin(_SiteAdmin):
    form = SiteRuleForm
    list_display = ["namespace", "direction", "kind", "remote"]
    list_filter = ["direction", "kind", "remote"]
    list_select_related = ["remote"]
    ordering = ["namespace", "direction"]
    search_fields = ["namespace"]
