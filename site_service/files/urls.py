"""Routes of the byte plane and its listings."""

from __future__ import annotations

from django.urls import path, re_path
from django.views.generic import RedirectView

from site_service.files.batch import batch
from site_service.files.listing import artifacts
from site_service.files.views import files

urlpatterns = [
    path("artifacts", artifacts),
    path("batch", batch),
    path("files", RedirectView.as_view(url="files/", permanent=True)),
    # The view reads the raw path itself; `.` would stop at a newline, and the answer to that is a 400 with the reason.
    re_path(r"^files/[\s\S]*\Z", files),
]
