"""The Celery app of a site and its beat table: what is looked at, how often. Celery decides; Dramatiq carries."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_service.settings")
# Celery would load every page to check it, and throw away what is found.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

from django.conf import settings

app = Celery("site_service")
app.conf.update(settings.CELERY_SETTINGS)
app.autodiscover_tasks(
    [
        "datamodel.alarms",
        "datamodel.audit",
        "datamodel.snapshots",
        "harvest",
        "harvest.reconcile",
        "site_service.files",
        "site_service.retention",
        "site_service.scrub",
        "site_service.file_sync",
        "site_service.file_validate",
        "site_service.snapshots",
    ]
)


def every(seconds: float, task: str) -> dict[str, object]:
    """A beat entry whose message is worthless once the next one is due."""
    return {"task": task, "schedule": seconds, "options": {"expires": seconds}}


app.conf.beat_schedule = {
    "alarms": every(10, "datamodel.alarms.tasks.deliver_alarms"),
    "audit": every(10, "datamodel.audit.tasks.seal_audit"),
    "audit-archive": every(3600, "datamodel.audit.tasks.archive_audit"),
    "harvest": every(settings.INVENTORY_HARVEST_SECONDS, "harvest.tasks.harvest_all"),
    "expire-events": every(600, "harvest.tasks.expire_events"),
    "reconcile": every(settings.INVENTORY_RECONCILE_SECONDS, "harvest.reconcile.tasks.reconcile_all"),
    "rotate-keys": every(3600, "harvest.tasks.rotate_keys"),
    "trusted-keys": every(60, "harvest.tasks.refresh_trusted_keys"),
    "file-sync": every(settings.INVENTORY_SYNC_SECONDS, "site_service.file_sync.tasks.enqueue_missing"),
    "transactions": every(300, "site_service.files.tasks.sweep_transactions"),
    "file-validate": every(30, "site_service.file_validate.tasks.advance_validation"),
    "scrub": every(settings.INVENTORY_SCRUB_SECONDS, "site_service.scrub.tasks.enqueue_readings"),
    "scrub-tidy": every(6 * 3600, "site_service.scrub.tasks.tidy"),
    "snapshots": every(30, "datamodel.snapshots.tasks.advance_snapshots"),
    "history": every(300, "datamodel.snapshots.tasks.forget_history"),
    "held": every(600, "datamodel.snapshots.tasks.count_held"),
    "pins": every(settings.INVENTORY_PINS_SECONDS, "site_service.snapshots.tasks.exchange_pins"),
    "retire": every(10, "site_service.retention.tasks.advance_retirement"),
    "release-marks": every(3600, "site_service.retention.tasks.give_back_unknown"),
    "retention": every(30, "site_service.retention.tasks.enqueue_removals"),
}
