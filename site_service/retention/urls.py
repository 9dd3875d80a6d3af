"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.retention.views import UndeleteView

urlpatterns: list[URLPattern | URLResolver] = [path("undelete", UndeleteView.as_view(), name="undelete")]
