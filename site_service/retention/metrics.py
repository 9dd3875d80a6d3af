"""What waits for removal, and what puts left open."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

_RETIRED_SQL = """
    SELECT state, count(*), coalesce(sum(content_length), 0) FROM retired_artifact
    WHERE state IN ('retained', 'removing') GROUP BY state
"""
_OBSOLETE_SQL = """
    SELECT count(*), coalesce(extract(epoch FROM inventory_now() - min(last_modified)), 0) FROM obsolete_storage_location
"""


def collect() -> Iterator[Metric]:
    """Counts and bytes by state, and the age of the oldest obsolete bytes."""
    artifacts = GaugeMetricFamily(
        "inventory_retired_artifacts", "Replaced or deleted artifacts with bytes", labels=["state"]
    )
    size = GaugeMetricFamily("inventory_retired_bytes", "Their bytes", labels=["state"])
    with connection.cursor() as cursor:
        cursor.execute(_RETIRED_SQL)
        found = {state: (count, total) for state, count, total in cursor.fetchall()}
        cursor.execute(_OBSOLETE_SQL)
        obsolete, oldest_seconds = cursor.fetchone()
    for state in ("retained", "removing"):
        count, total = found.get(state, (0, 0))
        artifacts.add_metric([state], count)
        size.add_metric([state], float(total))
    yield artifacts
    yield size
    yield GaugeMetricFamily("inventory_obsolete_locations", "Bytes that nobody needs, awaiting removal", value=obsolete)
    yield GaugeMetricFamily(
        "inventory_obsolete_oldest_seconds", "Age of the oldest of them", value=float(oldest_seconds)
    )
