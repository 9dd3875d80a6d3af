"""The Celery app of a global inventory and its beat table."""

from __future__ import annotations

import os

from celery import Celery, signals

os.environ.setdefault("INVENTORY_ROLE", "global")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "global_inventory.settings")
# Celery would load every page to check it, and throw away what is found.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

from django.conf import settings

app = Celery("global_inventory")
app.conf.update(settings.CELERY_SETTINGS)
app.autodiscover_tasks(
    [
        "datamodel.alarms",
        "datamodel.audit",
        "datamodel.snapshots",
        "harvest",
        "harvest.reconcile",
        "global_inventory.sites",
    ]
)


@signals.setup_logging.connect
def keep_logging(**_signal: object) -> None:
    """Logging is as the settings say: Celery's own would raise the root logger's level and swallow the END lines."""


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
    "snapshots": every(30, "datamodel.snapshots.tasks.advance_snapshots"),
    "history": every(300, "datamodel.snapshots.tasks.forget_history"),
    "probe-sites": every(settings.INVENTORY_PROBE_SECONDS, "global_inventory.sites.tasks.probe_sites"),
    "rotate-keys": every(3600, "harvest.tasks.rotate_keys"),
    "trusted-keys": every(60, "harvest.tasks.refresh_trusted_keys"),
}
