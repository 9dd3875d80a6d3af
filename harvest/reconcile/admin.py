"""The operator's door to the reports of reconcile."""

from __future__ import annotations

from django.contrib import admin

from datamodel.admin import TableAdmin
from harvest.reconcile.models import ReconcileDifference, ReconcileRun


@admin.register(ReconcileRun)
class ReconcileRunAdmin(TableAdmin):
    list_display = ["started_at", "remote", "mode", "is_complete", "rows_here", "rows_there", "differences", "applied"]
    list_display += ["requests", "traffic_bytes", "error"]
    list_select_related = ["remote"]
    list_filter = ["remote", "is_complete", "mode"]
    ordering = ["-started_at"]
    uri_column = None
    search_help_text = "An id"


@admin.register(ReconcileDifference)
class ReconcileDifferenceAdmin(TableAdmin):
    list_display = ["run", "label", "uri", "artifact_id", "action", "is_applied"]
    list_display_links = ["label"]
    list_select_related = ["run"]
    list_filter = ["run__remote", "label", "is_applied"]
    ordering = ["-id"]
    search_help_text = "The start of a uri"
