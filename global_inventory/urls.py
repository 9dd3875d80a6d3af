"""Routes of a global inventory, all below INVENTORY_BASE_PATH."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

admin.autodiscover()

_routes = [
    path("", include("global_inventory.locate.urls")),
    path("", include("global_inventory.artifacts.urls")),
    path("", include("global_inventory.held.urls")),
    path("", include("datamodel.snapshots.urls")),
    path("", include("global_inventory.snapshots.urls")),
    path("", include("global_inventory.releases.urls")),
    path("harvest/", include("harvest.urls")),
    path("admin/", include("datamodel.admin_urls")),
    path("", include("datamodel.urls")),
]

urlpatterns = [path(settings.INVENTORY_BASE_PATH, include(_routes))]
handler400 = handler403 = "datamodel.views.refused"
handler404 = "datamodel.views.not_found"
handler500 = "datamodel.views.failed"
