"""A site: the base, the site's apps and its artifact store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodel import env
from datamodel.base_settings import *  # noqa: F403
from datamodel.base_settings import (
    BASE_APPS,
    INVENTORY_CONTENT_ALGORITHM,
    INVENTORY_METRICS_MODULES,
    INVENTORY_NAME,
    INVENTORY_SCHEMA_MODULES,
    INVENTORY_SHA256,
    RESTORATION_STEPS,
)

INVENTORY_ROLE = "site"
INVENTORY_RESOURCE_ID = env.text("INVENTORY_RESOURCE_ID", f"ivo://localhost/{INVENTORY_NAME}")
INVENTORY_ALLOW_READ = env.flag("INVENTORY_ALLOW_READ", default=True)
INVENTORY_ALLOW_WRITE = env.flag("INVENTORY_ALLOW_WRITE", default=True)

# First, because it sets the Dramatiq broker: the admin site imports doors that send.
INSTALLED_APPS = [
    "site_service",
    *BASE_APPS,
    "site_service.scrub",
    "site_service.retention",
    "site_service.files",
    "site_service.policy",
    "site_service.file_sync",
    "site_service.file_validate",
]
# Tables that account for bytes which no artifact refers to, and by which of their rows: file validate lets those alone.
INVENTORY_BYTES_KEPT_BY = [
    ("retired_artifact", "k.state IN ('retained', 'removing')"),
    ("obsolete_storage_location", "TRUE"),
    ("quarantined_object", "k.state IN ('quarantined', 'removing')"),
    # Known to be bad: to attach them again would serve them.
    ("damaged_copy", "k.state <> 'released'"),
]
ROOT_URLCONF = "site_service.urls"
WSGI_APPLICATION = "site_service.wsgi.application"

# What this site wants of what a global offers: see `site_service/policy`.
HARVEST_SELECTION = "site_service.policy.queries.harvest_selection"
HARVEST_QUARANTINE = "site_service.file_validate.quarantine.quarantine_artifact"
# The task that is told when harvested rows have come.
HARVEST_NUDGE = "site_service.file_sync.tasks.enqueue_missing"
SCHEMA_BASELINE = Path(__file__).with_name("baseline.sql")
PROVISION_STEPS = ["site_service.health.ensure_store", "site_service.policy.provision.apply_configured_policy"]
# JSON list of {namespace, wanted, priority}: applied by `manage.py provision` while there is no policy, then never again.
INVENTORY_SYNC_POLICY = env.text("INVENTORY_SYNC_POLICY", "[]")

INVENTORY_SCHEMA_MODULES = [
    *INVENTORY_SCHEMA_MODULES,
    "site_service.files.schema",
    "site_service.scrub.schema",
    "site_service.retention.schema",
    "site_service.policy.schema",
    "site_service.file_sync.schema",
    "site_service.file_validate.schema",
    "site_service.snapshots.schema",
]
INVENTORY_METRICS_MODULES = [
    *INVENTORY_METRICS_MODULES,
    "site_service.retention.metrics",
    "site_service.scrub.metrics",
    "site_service.file_sync.metrics",
    "site_service.file_validate.metrics",
]
RESTORATION_STEPS = [
    *RESTORATION_STEPS,
    ("recover", "site_service.file_validate.recovery.recover"),
    ("validate", "site_service.file_validate.recovery.validate"),
]
INVENTORY_READINESS = ["site_service.health.check_store"]
INVENTORY_STATE = "site_service.health.state"

_STORAGE_DIR = env.text("INVENTORY_STORAGE_DIR", "")
_S3_BUCKET = env.text("INVENTORY_S3_BUCKET", "")


def _artifact_store() -> dict[str, Any]:
    digests = {"content_algorithm": INVENTORY_CONTENT_ALGORITHM, "sha256": INVENTORY_SHA256}
    if _S3_BUCKET:
        options = {
            **digests,
            "bucket_name": _S3_BUCKET,
            "endpoint_url": env.text("INVENTORY_S3_ENDPOINT_URL", "") or None,
            "region_name": env.text("INVENTORY_S3_REGION", "") or None,
            "access_key": env.text("INVENTORY_S3_ACCESS_KEY", "") or None,
            "secret_key": env.secret("INVENTORY_S3_SECRET_KEY", "") or None,
            "addressing_style": env.text("INVENTORY_S3_ADDRESSING_STYLE", "path"),
        }
        return {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}
    return {
        "BACKEND": "site_service.storage.filesystem.FilesystemStore",
        "OPTIONS": {**digests, "root": _STORAGE_DIR or ".storage"},
    }


STORAGES: dict[str, Any] = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "artifacts": _artifact_store(),
}

# Modules of Dramatiq actors that a worker of this site runs.
DRAMATIQ_ACTORS = (
    "site_service.retention.actors",
    "site_service.file_sync.actors",
    "site_service.file_validate.actors",
    "site_service.scrub.actors",
)

INVENTORY_REFUSE_EMPTY = env.flag("INVENTORY_REFUSE_EMPTY", default=False)
INVENTORY_MAX_CONTENT_BYTES = env.integer("INVENTORY_MAX_CONTENT_BYTES", 16 * 1024**4, minimum=1)
INVENTORY_READ_TIMEOUT_SECONDS = env.integer("INVENTORY_READ_TIMEOUT_SECONDS", 120, minimum=1)
INVENTORY_TRANSACTION_SECONDS = env.integer("INVENTORY_TRANSACTION_SECONDS", 7 * 24 * 3600, minimum=1)
INVENTORY_RETENTION_SECONDS = env.integer("INVENTORY_RETENTION_SECONDS", 14 * 24 * 3600)
# How often every global is asked for its snapshots: until it has answered, nothing that ended since the last answer is removed.
INVENTORY_PINS_SECONDS = env.integer("INVENTORY_PINS_SECONDS", 60, minimum=1)
INVENTORY_SYNC_FREE_BYTES = env.integer("INVENTORY_SYNC_FREE_BYTES", 2 * 1024**3)
INVENTORY_PUT_FREE_BYTES = env.integer("INVENTORY_PUT_FREE_BYTES", 1024**3)
INVENTORY_SYNC_THREADS = env.integer("INVENTORY_SYNC_THREADS", 8, minimum=1)
INVENTORY_SYNC_SECONDS = env.integer("INVENTORY_SYNC_SECONDS", 5, minimum=1)
# A worker that gives no sign of life for so long is given up: its transfers are taken over.
INVENTORY_SYNC_LEASE_SECONDS = env.integer("INVENTORY_SYNC_LEASE_SECONDS", 120, minimum=4)
# A source that is silent for so long, or slower than this on average over half a minute, is left for the next one.
INVENTORY_SYNC_READ_TIMEOUT_SECONDS = env.integer("INVENTORY_SYNC_READ_TIMEOUT_SECONDS", 30, minimum=1)
INVENTORY_SYNC_MIN_BYTES_PER_SECOND = env.integer("INVENTORY_SYNC_MIN_BYTES_PER_SECOND", 10_000)
INVENTORY_SYNC_TIME_LIMIT_SECONDS = env.integer("INVENTORY_SYNC_TIME_LIMIT_SECONDS", 24 * 3600, minimum=60)
# An object without a row may be a file on its way: it is left alone for so long.
INVENTORY_VALIDATE_GRACE_SECONDS = env.integer("INVENTORY_VALIDATE_GRACE_SECONDS", 24 * 3600)
INVENTORY_VALIDATE_SECONDS = env.integer("INVENTORY_VALIDATE_SECONDS", 7 * 24 * 3600)
INVENTORY_VALIDATE_FINDINGS = env.integer("INVENTORY_VALIDATE_FINDINGS", 100_000, minimum=1)
# Every stored byte is read again once in so long (0: never), this fast, in these hours (UTC); ScrubPolicy rows say otherwise.
INVENTORY_SCRUB_PERIOD_SECONDS = env.integer("INVENTORY_SCRUB_PERIOD_SECONDS", 90 * 24 * 3600)
INVENTORY_SCRUB_BYTES_PER_SECOND = env.integer("INVENTORY_SCRUB_BYTES_PER_SECOND", 20_000_000)
INVENTORY_SCRUB_HOURS = env.text("INVENTORY_SCRUB_HOURS", "")
INVENTORY_SCRUB_SECONDS = env.integer("INVENTORY_SCRUB_SECONDS", 60, minimum=1)
INVENTORY_LEGACY_PUBLIC_KEYS = env.words("INVENTORY_LEGACY_PUBLIC_KEYS")
