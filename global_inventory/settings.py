"""A global inventory: the base and its own apps; no artifact store, no Dramatiq."""

from __future__ import annotations

from pathlib import Path

from datamodel import env, vosi
from datamodel.base_settings import *  # noqa: F403
from datamodel.base_settings import (
    BASE_APPS,
    INVENTORY_CAPABILITIES,
    INVENTORY_METRICS_MODULES,
    INVENTORY_SCHEMA_MODULES,
)

INVENTORY_ROLE = "global"

INSTALLED_APPS = [
    *BASE_APPS,
    "global_inventory",
    "global_inventory.sites",
    "global_inventory.releases",
]
ROOT_URLCONF = "global_inventory.urls"
WSGI_APPLICATION = "global_inventory.wsgi.application"
SCHEMA_BASELINE = Path(__file__).with_name("baseline.sql")

STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

INVENTORY_CAPABILITIES = [*INVENTORY_CAPABILITIES, (vosi.LOCATE, "locate")]
# Nothing at a global waits for harvested rows.
HARVEST_NUDGE = ""
INVENTORY_SCHEMA_MODULES = [
    *INVENTORY_SCHEMA_MODULES,
    "global_inventory.locate.schema",
    "global_inventory.artifacts.schema",
    "global_inventory.held.schema",
    "global_inventory.snapshots.schema",
    "global_inventory.releases.schema",
]
INVENTORY_METRICS_MODULES = [
    *INVENTORY_METRICS_MODULES,
    "global_inventory.sites.metrics",
    "global_inventory.artifacts.metrics",
    "global_inventory.releases.metrics",
]

# A snapshot is kept once every site has said so.
INVENTORY_SNAPSHOT_AWAITS = "global_inventory.snapshots.queries.awaited"
# How long a negotiated URL may be used to begin a transfer.
INVENTORY_URL_SECONDS = env.integer("INVENTORY_URL_SECONDS", 3600, minimum=1)
INVENTORY_PROBE_SECONDS = env.integer("INVENTORY_PROBE_SECONDS", 30, minimum=1)
INVENTORY_POSITION_WAIT_SECONDS = env.integer("INVENTORY_POSITION_WAIT_SECONDS", 2)
# A probe of all sites, and asking the sites for an artifact that is not known here, each end within this time as a whole.
INVENTORY_PROBE_TIMEOUT_SECONDS = env.integer("INVENTORY_PROBE_TIMEOUT_SECONDS", 5, minimum=1)
INVENTORY_ASK_SECONDS = env.integer("INVENTORY_ASK_SECONDS", 3, minimum=1)
# A question whether files are held may wait for so long until they are.
INVENTORY_HELD_WAIT_SECONDS = env.integer("INVENTORY_HELD_WAIT_SECONDS", 60)
# A site may drop a copy only if so many verified ones remain elsewhere (ReleaseRule rows say otherwise), each written or read back
# since so long: twice the usual period of scrub.
INVENTORY_MINIMUM_COPIES = env.integer("INVENTORY_MINIMUM_COPIES", 1, minimum=1)
INVENTORY_RELEASE_VERIFIED_SECONDS = env.integer("INVENTORY_RELEASE_VERIFIED_SECONDS", 180 * 24 * 3600, minimum=1)
