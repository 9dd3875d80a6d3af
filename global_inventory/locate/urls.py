"""Routes of negotiation."""

from __future__ import annotations

from django.urls import path

from global_inventory.locate import views

urlpatterns = [
    path("locate", views.locate, name="locate"),
    path("files/<path:name>", views.files, name="files"),
]
