"""Routes that both roles have, below INVENTORY_BASE_PATH."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

# The schema generator finds `openapi`'s extension once it is imported; only who serves or prints a schema has routes.
from datamodel import openapi, views  # noqa: F401
from datamodel.alarms.views import AlarmsView
from datamodel.pairing import views as pairing

urlpatterns: list[URLPattern | URLResolver] = [
    path("", views.landing, name="landing"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("pubkey", views.pubkey, name="pubkey"),
    path("pairings", pairing.pairings, name="pairings"),
    path("pairings/acceptances", pairing.acceptances, name="pairing-acceptances"),
    path("pairings/revocations", pairing.revocations, name="pairing-revocations"),
    path("pairings/<uuid:invitation>/redemption", pairing.redemption, name="pairing-redemption"),
    path("metrics", views.prometheus, name="metrics"),
    path("permissions/explain", views.explain_permission, name="explain-permission"),
    path("availability", views.availability, name="availability"),
    path("alarms", AlarmsView.as_view(), name="alarms"),
    path("capabilities", views.capabilities, name="capabilities"),
    path("schema", views.SchemaView.as_view(), name="schema"),
    path("docs", views.DocsView.as_view(url_name="schema"), name="docs"),
]
