"""Routes of a site, all below INVENTORY_BASE_PATH."""

from __future__ import annotations

import re

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path

from site_service.files.views import files

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

urlpatterns = [
    # First, and by itself: nearly every request is one for a file, and each route before it would be tried.
    # The view reads the raw path itself; `.` would stop at a newline, and the answer to that is a 400 with the reason.
    re_path(rf"^{re.escape(settings.INVENTORY_BASE_PATH)}files/[\s\S]*\Z", files),
    path(settings.INVENTORY_BASE_PATH, include(_routes)),
]
handler400 = handler403 = "datamodel.views.refused"
handler404 = "datamodel.views.not_found"
handler500 = "datamodel.views.failed"
