"""Routes of the catalogue."""

from __future__ import annotations

from django.urls import path

from global_inventory.artifacts import views

urlpatterns = [
    path("artifacts", views.artifacts, name="artifacts"),
    path("artifacts/<uuid:artifact_id>", views.artifact, name="artifact"),
    path("explain", views.explain, name="explain"),
]
