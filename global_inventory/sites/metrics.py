"""Gauges of sites: whether each can be read and written, how fast it answers, how old that knowledge is."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from global_inventory.sites.queries import read_site_table
from global_inventory.sites.rules import Direction, obstacle

_PROBES_SQL = """
    SELECT r.name, p.latency_ms / 1000, p.failures, extract(epoch FROM inventory_now() - p.checked_at)::float8
    FROM remote_inventory r JOIN site_probe p ON p.remote_id = r.id WHERE r.role = 'site' AND r.enabled ORDER BY r.name
"""


def collect() -> Iterable[Metric]:
    """Two statements over a table with one row per site."""
    offered = GaugeMetricFamily(
        "inventory_site_offered",
        "Whether a site is offered to callers now (1) or not (0)",
        labels=["site", "direction"],
    )
    for site in read_site_table().sites.values():
        for direction in Direction:
            offered.add_metric([site.name, direction.value], 1 if obstacle(site, direction) is None else 0)
    yield offered
    latency = GaugeMetricFamily("inventory_site_latency_seconds", "Moving average of probes", labels=["site"])
    failures = GaugeMetricFamily("inventory_site_probe_failures", "Failed probes in a row", labels=["site"])
    age = GaugeMetricFamily("inventory_site_probe_age_seconds", "Time since the last probe", labels=["site"])
    with connection.cursor() as cursor:
        cursor.execute(_PROBES_SQL)
        for name, seconds, failed, since in cursor.fetchall():
            if seconds is not None:
                latency.add_metric([name], seconds)
            failures.add_metric([name], failed)
            age.add_metric([name], since)
    yield from (latency, failures, age)
