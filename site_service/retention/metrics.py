"""What waits for removal, and copies that shall go."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from site_service.retention import queries
from site_service.retention.models import RetireRun
from site_service.retention.rules import OPEN_RELEASES

_RETIRED_SQL = """
    SELECT state, count(*), coalesce(sum(content_length), 0) FROM retired_artifact
    WHERE state IN ('retained', 'removing') GROUP BY state
"""
_OBSOLETE_SQL = """
    SELECT count(*), coalesce(extract(epoch FROM inventory_now() - min(last_modified)), 0) FROM obsolete_storage_location
"""
# More runs at a time than anybody begins.
_RUNS = 100


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
    yield from _releases()
    yield from _runs()


def _releases() -> Iterator[Metric]:
    files = CounterMetricFamily("inventory_copy_releases", "Copies that should go, by outcome", labels=["outcome"])
    size = CounterMetricFamily("inventory_copy_releases_bytes", "Their bytes", labels=["outcome"])
    for outcome, (count, total) in queries.release_outcomes().items():
        files.add_metric([outcome], count)
        size.add_metric([outcome], total)
    waiting = GaugeMetricFamily("inventory_copy_releases_open", "Copies on their way out", labels=["state"])
    found = queries.open_releases()
    for state in OPEN_RELEASES:
        waiting.add_metric([state.value], found.get(state.value, 0))
    yield from (files, size, waiting)


def _runs() -> Iterator[Metric]:
    progress = GaugeMetricFamily(
        "inventory_retire_files", "Copies of runs of retire that are not over", labels=["namespace", "state"]
    )
    for run in RetireRun.objects.filter(state=RetireRun.State.RUNNING).order_by("namespace")[:_RUNS]:
        counts = {
            "listed": run.files,
            "dropped": run.dropped_files,
            "refused": run.refused_files,
            "gone": run.gone_files,
        }
        for state, count in counts.items():
            progress.add_metric([run.namespace, state], count)
    yield progress
