"""Gauges of the audit, each a query at scrape time (names and meanings: README.md)."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_SQL = """
    WITH sealed AS (SELECT to_txid, to_id FROM audit_seal ORDER BY number DESC LIMIT 1),
    last AS (SELECT to_txid, to_id FROM sealed UNION ALL
        (SELECT to_txid, to_id FROM audit_archive WHERE NOT EXISTS (SELECT FROM sealed) ORDER BY to_seal DESC LIMIT 1)),
    waiting AS (SELECT at FROM audit_entry
        WHERE (txid, id) > (coalesce((SELECT to_txid FROM last), 0), coalesce((SELECT to_id FROM last), 0))
        ORDER BY txid, id LIMIT 1)
    SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('audit_entry', 'id')), 0),
        coalesce((SELECT extract(epoch FROM inventory_now() - at) FROM waiting), 0),
        coalesce((SELECT max(number) FROM audit_seal), (SELECT max(to_seal) FROM audit_archive), 0),
        (SELECT extract(epoch FROM inventory_now() - max(at)) FROM audit_head)
"""


def collect() -> Iterable[Metric]:
    """How many entries there were, how long the oldest waits for its seal, when the head was signed."""
    with connection.cursor() as cursor:
        cursor.execute(_SQL)
        entries, unsealed, seals, signed = cursor.fetchone()
    yield CounterMetricFamily("inventory_audit_entries", "Entries of the audit since the beginning", value=entries)
    yield GaugeMetricFamily("inventory_audit_seals", "Seals of the audit since the beginning", value=seals)
    yield GaugeMetricFamily(
        "inventory_audit_unsealed_seconds",
        "How long the oldest entry waits for its seal",
        value=max(float(unsealed), 0.0),
    )
    head = GaugeMetricFamily("inventory_audit_head_age_seconds", "Since the head of the chain was last signed")
    if signed is not None:
        head.add_metric([], max(float(signed), 0.0))
    yield head
