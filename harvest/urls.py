"""Routes of the feed, mounted at `harvest/` by both roles."""

from __future__ import annotations

from django.urls import path

from harvest import views
from harvest.reconcile import views as reconcile_views
from harvest.streams import STREAMS

urlpatterns = [
    path("news", views.wait_for_news, name="harvest-news"),
    path("tree", reconcile_views.tree, name="harvest-tree"),
    path("listing", reconcile_views.listing, name="harvest-listing"),
    path("rows", reconcile_views.rows, name="harvest-rows"),
    *(path(name, views.stream_page, {"stream": name}, name=f"harvest-{name}") for name in STREAMS),
]
