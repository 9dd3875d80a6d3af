"""Releases by outcome, and copies on their way out."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from global_inventory.releases import queries


def collect() -> Iterator[Metric]:
    """Counts since the beginning; gauges from the index of marked copies."""
    counter = CounterMetricFamily(
        "inventory_releases", "Copies that sites asked to drop, by outcome", labels=["outcome"]
    )
    for outcome, files in queries.outcomes().items():
        counter.add_metric([outcome], files)
    copies = GaugeMetricFamily("inventory_releasing_copies", "Copies that a site may drop", labels=["site"])
    age = GaugeMetricFamily("inventory_releasing_oldest_seconds", "For how long the oldest of them", labels=["site"])
    for site, count, seconds in queries.releasing():
        copies.add_metric([site], count)
        age.add_metric([site], seconds)
    yield from (counter, copies, age)
