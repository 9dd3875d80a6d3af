"""Gauges of snapshots: how many in which state, how long the oldest waits, and what they hold back from removal."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from datamodel.snapshots.models import SnapshotMark
from datamodel.snapshots.rules import State

_STATES_SQL = """
    SELECT state, count(*), count(*) FILTER (WHERE is_orphan),
        coalesce(extract(epoch FROM inventory_now() - min(created_at)), 0) FROM snapshot GROUP BY state
"""
_AGES_SQL = """
    SELECT g.name, extract(epoch FROM inventory_now() - p.heard_at)
    FROM remote_inventory g LEFT JOIN snapshot_pin_source p ON p.remote_id = g.id AND p.url = g.url
    WHERE g.enabled AND g.role = 'global' ORDER BY 1
"""


def collect() -> Iterable[Metric]:
    """Computed at the scrape."""
    states = GaugeMetricFamily("inventory_snapshots", "Snapshots, those of globals included", labels=["state"])
    with connection.cursor() as cursor:
        cursor.execute(_STATES_SQL)
        found = {row[0]: row[1:] for row in cursor.fetchall()}
    for state in State:
        states.add_metric([state.value], found.get(state.value, (0, 0, 0))[0])
    yield states
    yield GaugeMetricFamily(
        "inventory_snapshot_orphans",
        "Snapshots of globals that these do not know any more; what they hold stays",
        value=sum(row[1] for row in found.values()),
    )
    yield GaugeMetricFamily(
        "inventory_snapshot_pinning_seconds",
        "Age of the oldest snapshot that is not kept yet",
        value=float(found.get(State.PINNING.value, (0, 0, 0))[2]),
    )
    ages = GaugeMetricFamily(
        "inventory_pins_age_seconds", "Since a global has named its snapshots; +Inf: never", labels=["remote"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_AGES_SQL)
        for name, seconds in cursor.fetchall():
            ages.add_metric([name], float(seconds) if seconds is not None else float("inf"))
    yield ages
    held = SnapshotMark.objects.values_list("held_artifacts", "held_size").filter(id=1).first()
    count, size = held or (0, 0)
    yield GaugeMetricFamily("inventory_pinned_artifacts", "Retired artifacts that a snapshot needs", value=count)
    yield GaugeMetricFamily("inventory_pinned_bytes", "Their bytes", value=size)
