"""Prometheus metrics: what was counted (`counters`), and gauges that are queries at the time of the scrape.

A feature adds its gauges in a module `metrics.py` with `collect()`, named in INVENTORY_METRICS_MODULES. One that fails or
takes too long is reported in `inventory_collector_failed` and does not hide the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from importlib import import_module

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from datamodel import counters, queries, restoration
from datamodel.errors import InventoryError

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 5
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_requests = Counter(
    "inventory_requests",
    "Answered requests by method, class of status and reason (the code of a problem, or none)",
    ["method", "status", "reason"],
    registry=counters.registry,
)
_seconds = Histogram(
    "inventory_request_seconds",
    "Time until the headers of an answer were ready",
    ["method"],
    buckets=_BUCKETS,
    registry=counters.registry,
)


def count_request(method: str, status: int, reason: str | None, seconds: float) -> None:
    """One answered request; an unknown method is counted as OTHER, so that no caller can invent series."""
    known = method if method in _METHODS else "OTHER"
    count_answer(known, status, reason)
    _seconds.labels(known).observe(seconds)


def count_answer(method: str, status: int, reason: str | None) -> None:
    """One answer: to a request, or to one of those that came in one request, which have no time of their own."""
    _requests.labels(method, f"{status // 100}xx", reason or "none").inc()


def exposition(accept: str) -> tuple[bytes, str]:
    """Everything, in the format that the scraper accepts: (body, content type)."""
    encode, content_type = choose_encoder(accept)
    return encode(_All()), content_type


class _All:
    def collect(self) -> Iterator[Metric]:
        yield from counters.collect()
        failed = GaugeMetricFamily(
            "inventory_collector_failed", "1 if these gauges could not be computed", labels=["module"]
        )
        for name in settings.INVENTORY_METRICS_MODULES:
            found = _collected(name)
            failed.add_metric([name], 1 if found is None else 0)
            yield from found or ()
        yield failed


def _collected(name: str) -> list[Metric] | None:
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_SECONDS * 1000}")
            return list(import_module(name).collect())
    except (DatabaseError, InventoryError) as error:
        facts = {"module": name, "result": "failed", "reason": str(error).strip()}
        logger.warning("END event=collect", extra={"facts": facts})
        return None


def collect() -> Iterable[Metric]:
    """What every inventory has: who it is, its size, its pool of database connections."""
    info = {"name": settings.INVENTORY_NAME, "role": settings.INVENTORY_ROLE}
    yield InfoMetricFamily("inventory", "This inventory", value=info | {"version": settings.INVENTORY_VERSION})
    found = restoration.current()
    yield GaugeMetricFamily(
        "inventory_restoring",
        "0 when open; else the number of the step of restoring that is next",
        value=restoration.number(found)[0] if found is not None else 0,
    )
    rows = GaugeMetricFamily("inventory_rows", "Rows of a table (an estimate when there are many)", labels=["table"])
    for table in queries.COUNTED_TABLES:
        rows.add_metric([table], queries.row_count(table))
    yield rows
    if (pool := getattr(connection, "pool", None)) is not None:
        stats: dict[str, int] = pool.get_stats()
        sizes = GaugeMetricFamily(
            "inventory_database_pool", "Connections and waiting requests of the database pool", labels=["what"]
        )
        for what in ("pool_size", "pool_available", "pool_max", "requests_waiting"):
            sizes.add_metric([what], stats.get(what, 0))
        yield sizes
