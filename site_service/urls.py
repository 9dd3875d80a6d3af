"""Routes of a site, all below INVENTORY_BASE_PATH."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

admin.autodiscover()

_routes = [
    path("", include("site_service.files.urls")),
    path("", include("site_service.scrub.urls")),
    path("", include("site_service.retention.urls")),
    path("", include("site_service.policy.urls")),
    path("", include("site_service.file_sync.urls")),
    path("", include("site_service.file_validate.urls")),
    path("", include("datamodel.snapshots.urls")),
    path("", include("site_service.snapshots.urls")),
    path("harvest/", include("harvest.urls")),
    path("admin/", include("datamodel.admin_urls")),
    path("", include("datamodel.urls")),
]

urlpatterns = [path(settings.INVENTORY_BASE_PATH, include(_routes))]
handler400 = handler403 = "datamodel.views.refused"
handler404 = "datamodel.views.not_found"
handler500 = "datamodel.views.failed"
