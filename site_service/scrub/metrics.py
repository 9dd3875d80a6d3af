"""Gauges of scrub, computed when they are scraped from the ends of indexes, and its counters by result."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from site_service.scrub import queries


def collect() -> Iterable[Metric]:
    """How old the knowledge is, what was read, what was found."""
    age = GaugeMetricFamily(
        "inventory_scrub_oldest_seconds", "Age of the oldest unverified byte, by rule", labels=["namespace"]
    )
    late = GaugeMetricFamily(
        "inventory_scrub_overdue_seconds", "How late the most overdue reading is, by rule", labels=["namespace"]
    )
    for namespace, seconds, overdue in queries.oldest(queries.configured_schedule()):
        age.add_metric([namespace], seconds)
        late.add_metric([namespace], overdue)
    files = CounterMetricFamily("inventory_scrub_files", "Copies looked at, by result", labels=["result"])
    size = CounterMetricFamily("inventory_scrub_bytes", "Their bytes; result read: verified", labels=["result"])
    for result, (count, total) in queries.outcomes().items():
        files.add_metric([result], count)
        size.add_metric([result], total)
    yield from (age, late, files, size)
    found = queries.damaged_counts()
    yield GaugeMetricFamily(
        "inventory_scrub_damaged_copies", "Copies taken out of service, not repaired yet", value=found["damaged"]
    )
    yield GaugeMetricFamily(
        "inventory_scrub_unrepairable_copies",
        "Those of them for which no good copy was found anywhere",
        value=found["unrepairable"],
    )
    yield GaugeMetricFamily(
        "inventory_scrub_unreadable_copies",
        "Copies in service that could not be read when it was tried",
        value=found["unreadable"],
    )
