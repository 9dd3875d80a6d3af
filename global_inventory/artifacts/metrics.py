"""Gauges of the catalogue: artifacts that no site holds."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from global_inventory.artifacts import queries

# Counting passes over every artifact; an alarm about them can wait this long.
_KEPT_SECONDS = 300.0


class _ZeroCopies:
    """The last count and when it was made, by the clock of this process."""

    def __init__(self) -> None:
        self._count = 0
        self._counted_at = float("-inf")

    def get(self) -> tuple[int, float]:
        """(count, age in seconds). Raises `DatabaseError` when counting takes longer than the scrape allows."""
        if time.monotonic() - self._counted_at > _KEPT_SECONDS:
            self._count = queries.count_without_copies()
            self._counted_at = time.monotonic()
        return self._count, time.monotonic() - self._counted_at

    def clear(self) -> None:
        self._counted_at = float("-inf")


zero_copies = _ZeroCopies()


def collect() -> Iterable[Metric]:
    """Computed at most once in five minutes; how many artifacts are known is a row count that every inventory has."""
    count, age = zero_copies.get()
    yield GaugeMetricFamily("inventory_zero_copy_artifacts", "Artifacts that no site holds a copy of", value=count)
    yield GaugeMetricFamily(
        "inventory_zero_copy_age_seconds", "How long ago the artifacts without copies were counted", value=age
    )
