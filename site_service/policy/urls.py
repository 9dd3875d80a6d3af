"""Routes."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from site_service.policy.views import PolicyView

urlpatterns: list[URLPattern | URLResolver] = [path("policy", PolicyView.as_view(), name="policy")]
