"""Routes of the byte plane and its listings."""

from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from site_service.files.batch import batch
from site_service.files.listing import artifacts

urlpatterns = [
    path("artifacts", artifacts),
    path("batch", batch),
    path("files", RedirectView.as_view(url="files/", permanent=True)),
]
