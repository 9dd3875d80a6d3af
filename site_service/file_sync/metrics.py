"""Gauges of file sync, computed when they are scraped, and its counters by reason word."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from site_service.file_sync import queries
from site_service.file_sync.queries import Summary
from site_service.storage.registry import get_store


def collect() -> Iterable[Metric]:
    """What is missing, how it goes, how it ended."""
    yield from _gauges(queries.summary())
    yield GaugeMetricFamily(
        "inventory_sync_paused", "1 while free space is below the mark", value=int(queries.is_paused(get_store()))
    )
    files = CounterMetricFamily("inventory_sync_files", "Ended attempts by reason", labels=["reason"])
    size = CounterMetricFamily("inventory_sync_bytes", "Bytes that came, by reason", labels=["reason"])
    for reason, (count, total) in queries.outcomes().items():
        files.add_metric([reason], count)
        size.add_metric([reason], total)
    yield from (files, size)


def _gauges(found: Summary) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "inventory_sync_missing_files", "Wanted artifacts whose bytes are not here", value=found.missing
    )
    yield GaugeMetricFamily(
        "inventory_sync_missing_bytes", "Their bytes, as far as they are queued", value=found.missing_bytes
    )
    yield GaugeMetricFamily(
        "inventory_sync_repairs", "Missing artifacts whose copy was here and was lost", value=found.repairs
    )
    yield GaugeMetricFamily(
        "inventory_sync_in_flight_files", "Artifacts that a batch has leased", value=found.in_flight
    )
    yield GaugeMetricFamily(
        "inventory_sync_expired_leases", "Artifacts whose lease expired and was not claimed again", value=found.expired
    )
    yield GaugeMetricFamily("inventory_sync_due_files", "Artifacts that may be claimed now", value=found.due)
    yield GaugeMetricFamily(
        "inventory_sync_oldest_seconds", "How long the oldest one has been queued", value=found.oldest_seconds
    )
    failing = GaugeMetricFamily("inventory_sync_failing_files", "Queued artifacts by last failure", labels=["reason"])
    for reason, count in found.failing.items():
        failing.add_metric([reason], count)
    yield failing
