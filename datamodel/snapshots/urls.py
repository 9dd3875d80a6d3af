"""Routes that both roles have."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from datamodel.snapshots import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("snapshots", views.snapshots, name="snapshots"),
    path("snapshots/<str:name>", views.snapshot, name="snapshot"),
    path("snapshots/<str:name>/manifest", views.manifest, name="snapshot-manifest"),
    path("snapshots/<str:name>/diff", views.diff, name="snapshot-diff"),
    path("snapshots/<str:name>/verification", views.verification, name="snapshot-verification"),
]
