"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from global_inventory.held import views

urlpatterns: list[URLPattern | URLResolver] = [path("held", views.held, name="held")]
