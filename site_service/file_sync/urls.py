"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.file_sync import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("explain", views.explain, name="explain"),
    path("sync", views.sync, name="sync"),
]
