"""App config of reconcile: it keeps the reports."""

from django.apps import AppConfig


class ReconcileConfig(AppConfig):
    name = "harvest.reconcile"
    label = "reconcile"
    verbose_name = "Reconcile"
