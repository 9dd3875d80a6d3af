"""Gauges of file sync, computed when they are scraped, and its counters by reason word."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from site_service.file_sync import queries
from site_service.storage.registry import get_store


def collect() -> Iterable[Metric]:
    """What is missing, how it goes, how it ended."""
    found = queries.summary()
    gauges = (
        ("inventory_sync_missing_files", "Wanted artifacts whose bytes are not here", found.missing),
        ("inventory_sync_missing_bytes", "Their bytes, as far as they are queued", found.missing_bytes),
        ("inventory_sync_repairs", "Missing artifacts whose copy was here and was lost", found.repairs),
        ("inventory_sync_in_flight_files", "Artifacts that a batch has leased", found.in_flight),
        ("inventory_sync_expired_leases", "Artifacts whose lease expired and was not claimed again yet", found.expired),
        ("inventory_sync_due_files", "Artifacts that may be claimed now", found.due),
        ("inventory_sync_oldest_seconds", "How long the oldest missing artifact has been queued", found.oldest_seconds),
        ("inventory_sync_paused", "1 while free space is below the mark", int(queries.is_paused(get_store()))),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(name, text, value=value)
    failing = GaugeMetricFamily("inventory_sync_failing_files", "Queued artifacts by last failure", labels=["reason"])
    for reason, count in found.failing.items():
        failing.add_metric([reason], count)
    yield failing
    files = CounterMetricFamily("inventory_sync_files", "Ended attempts by reason", labels=["reason"])
    size = CounterMetricFamily("inventory_sync_bytes", "Bytes that came, by reason", labels=["reason"])
    for reason, (count, total) in queries.outcomes().items():
        files.add_metric([reason], count)
        size.add_metric([reason], total)
    yield from (files, size)
