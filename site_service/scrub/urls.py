"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.scrub import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("scrub", views.scrub, name="scrub"),
    path("verified", views.verified, name="verified"),
]
