"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from global_inventory.snapshots import views

urlpatterns: list[URLPattern | URLResolver] = [path("pins", views.pins, name="pins")]
