"""Gauges of what this process remembers of permission services."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from datamodel.permission_service.memory import services


def collect() -> Iterable[Metric]:
    """Nothing where no service is configured."""
    found = services()
    if not found:
        return
    labels = ["service"]
    up = GaugeMetricFamily("inventory_permission_service_up", "0 while it does not answer", labels=labels)
    held = GaugeMetricFamily("inventory_permission_remembered", "Answers that are remembered", labels=labels)
    age = GaugeMetricFamily("inventory_permission_age_seconds", "Age of the oldest of them", labels=labels)
    for service in found:
        count, oldest = service.standing()
        up.add_metric([service.url], int(service.is_up))
        held.add_metric([service.url], count)
        age.add_metric([service.url], oldest)
    yield from (up, held, age)
