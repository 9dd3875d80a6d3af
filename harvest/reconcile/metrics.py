"""Gauges of reconcile, each a query at scrape time (names and meanings: ../README.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from harvest.reconcile.rules import Label

_RUNS_SQL = """
    SELECT r.name, l.is_complete, extract(epoch FROM now() - c.finished_at), c.differences, c.applied
    FROM remote_inventory r
    LEFT JOIN LATERAL (SELECT * FROM reconcile_run u WHERE u.remote_id = r.id AND u.finished_at IS NOT NULL
        ORDER BY u.started_at DESC LIMIT 1) l ON true
    LEFT JOIN LATERAL (SELECT * FROM reconcile_run u WHERE u.remote_id = r.id AND u.is_complete
        ORDER BY u.started_at DESC LIMIT 1) c ON true
    WHERE r.enabled AND l.id IS NOT NULL ORDER BY 1
"""


def collect() -> Iterable[Metric]:
    """Of each remote: when it was last compared whole, whether the last comparison failed, what differed and is left."""
    age = GaugeMetricFamily(
        "inventory_reconcile_age_seconds", "Since the last complete comparison ended.", labels=["remote"]
    )
    failing = GaugeMetricFamily("inventory_reconcile_failing", "1 if the last comparison failed.", labels=["remote"])
    left = GaugeMetricFamily(
        "inventory_reconcile_differences",
        "What the last complete comparison found and did not settle.",
        labels=["remote", "label"],
    )
    with connection.cursor() as cursor:
        cursor.execute(_RUNS_SQL)
        rows = cursor.fetchall()
    for name, is_complete, seconds, differences, applied in rows:
        failing.add_metric([name], float(not is_complete))
        if seconds is None:
            continue
        age.add_metric([name], float(seconds))
        found, settled = _counts(differences), _counts(applied)
        for label in Label:
            if label.value in found:
                left.add_metric([name, label.value], found[label.value] - settled.get(label.value, 0))
    yield from (age, failing, left)


def _counts(value: str | dict[str, int]) -> dict[str, int]:
    counts: dict[str, int] = json.loads(value) if isinstance(value, str) else value
    return counts
