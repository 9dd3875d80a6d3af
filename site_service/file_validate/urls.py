"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.file_validate.views import FindingsView, RunsView

urlpatterns: list[URLPattern | URLResolver] = [
    path("validation/findings", FindingsView.as_view(), name="validation-findings"),
    path("validation/runs", RunsView.as_view(), name="validation-runs"),
]
