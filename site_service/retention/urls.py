"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.retention.views import RefusalsView, RetireRunView, RetireView, UndeleteView

urlpatterns: list[URLPattern | URLResolver] = [
    path("undelete", UndeleteView.as_view(), name="undelete"),
    path("retire", RetireView.as_view(), name="retire"),
    path("retire/<uuid:run>", RetireRunView.as_view(), name="retire-run"),
    path("retire/<uuid:run>/refusals", RefusalsView.as_view(), name="retire-refusals"),
]
