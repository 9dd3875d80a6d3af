"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.snapshots import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("snapshots/<str:name>/restore", views.restore, name="snapshot-restore")
]
