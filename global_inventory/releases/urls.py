"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from global_inventory.releases import views

urlpatterns: list[URLPattern | URLResolver] = [
    path("releases", views.releases, name="releases"),
    path("releases/returned", views.returned, name="releases-returned"),
]
