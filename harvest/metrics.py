"""Gauges of the exchange, each a query at scrape time (names and meanings: README.md)."""

from __future__ import annotations

from collections.abc import Iterable

from django.conf import settings
from django.db import connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from datamodel.positions import read_identity
from harvest.expiry import EVENT_TABLES
from harvest.readers import active_readers

_LAG_SQL = """
    SELECT r.name, s.name, s.selector, extract(epoch FROM now() - s.updated_at), s.is_complete, s.rows
    FROM harvest_state s JOIN remote_inventory r ON r.id = s.remote_id WHERE r.enabled ORDER BY 1, 2, 3
"""
_REMOTES_SQL = """
    SELECT name, last_error <> '', extract(epoch FROM now() - last_contact_at),
        lease_until IS NOT NULL AND lease_until < now()
    FROM remote_inventory WHERE enabled ORDER BY name
"""
# The oldest transaction with an id, in any database of the cluster, holds the horizon; prepared ones have no process.
_HORIZON_SQL = """
    SELECT coalesce(a.pid, 0), coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(a.datname, ''),
        extract(epoch FROM clock_timestamp() - a.xact_start)
    FROM pg_stat_activity a WHERE a.backend_xid IS NOT NULL
    UNION ALL
    SELECT 0, 'prepared ' || p.gid, p.database, extract(epoch FROM clock_timestamp() - p.prepared) FROM pg_prepared_xacts p
    ORDER BY 4 DESC LIMIT 1
"""
_BRAKES_SQL = """
    SELECT source, namespace, engaged_at IS NOT NULL, CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN removed ELSE 0 END
    FROM deletion_brake ORDER BY source, namespace
"""
_COUNTS_SQL = """
    SELECT (SELECT count(*) FROM harvest_rejection WHERE seen_at IS NULL),
        (SELECT count(*) FROM harvest_conflict WHERE seen_at IS NULL)
"""


def collect() -> Iterable[Metric]:
    """Lag and completeness of each cursor, failing remotes, the horizon and what holds it, what waits for an operator."""
    yield from _cursors()
    yield from _remotes()
    yield from _horizon()
    yield from _brakes()
    yield from _expiry()
    with connection.cursor() as cursor:
        cursor.execute(_COUNTS_SQL)
        rejections, conflicts = cursor.fetchone()
    yield GaugeMetricFamily("inventory_harvest_rejections_unseen", "Rows set aside, not yet seen.", value=rejections)
    yield GaugeMetricFamily("inventory_harvest_conflicts_unseen", "Collisions, not yet seen.", value=conflicts)


def _cursors() -> Iterable[Metric]:
    labels = ["remote", "stream", "namespace"]
    lag = GaugeMetricFamily(
        "inventory_harvest_lag_seconds", "Since the cursor last moved or was found complete.", labels=labels
    )
    complete = GaugeMetricFamily(
        "inventory_harvest_complete", "1 if the last page was the last there was.", labels=labels
    )
    rows = GaugeMetricFamily("inventory_harvest_rows", "Rows received by this cursor.", labels=labels)
    with connection.cursor() as cursor:
        cursor.execute(_LAG_SQL)
        for *names, seconds, is_complete, count in cursor.fetchall():
            if seconds is not None:
                lag.add_metric(names, float(seconds))
            complete.add_metric(names, float(is_complete))
            rows.add_metric(names, float(count))
    yield from (lag, complete, rows)


def _brakes() -> Iterable[Metric]:
    engaged = GaugeMetricFamily(
        "inventory_deletion_brake_engaged",
        "1 while this source is stopped from removing (of a namespace with a rule, or of all others).",
        labels=["source", "namespace"],
    )
    today = GaugeMetricFamily(
        "inventory_deletions_today", "Artifacts that this source removed today.", labels=["source", "namespace"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_BRAKES_SQL)
        for *names, is_engaged, removed in cursor.fetchall():
            engaged.add_metric(names, float(is_engaged))
            today.add_metric(names, float(removed))
    yield from (engaged, today)


def _expiry() -> Iterable[Metric]:
    age = GaugeMetricFamily("inventory_oldest_event_seconds", "Age of the oldest event that is kept; 0 without any.")
    blocked = GaugeMetricFamily(
        "inventory_event_expiry_blocked", "1 while events that are old enough are kept for this peer.", labels=["peer"]
    )
    expired = CounterMetricFamily(
        "inventory_events_expired", "Events that were old, passed by every peer, and forgotten."
    )
    with connection.cursor() as cursor:
        oldest = " UNION ALL ".join(
            f"(SELECT txid, last_modified FROM {table} ORDER BY txid, id LIMIT 1)" for table in EVENT_TABLES
        )
        cursor.execute(
            f"SELECT txid, extract(epoch FROM (SELECT inventory_now()) - last_modified) FROM ({oldest}) t ORDER BY 1"
        )
        events = [(txid, float(seconds)) for txid, seconds in cursor.fetchall()]
        cursor.execute("SELECT coalesce(sum(events_expired), 0) FROM inventory_identity")
        (count,) = cursor.fetchone()
    age.add_metric([], max((seconds for _, seconds in events), default=0.0))
    expired.add_metric([], float(count))
    limit = settings.INVENTORY_EVENT_RETENTION_DAYS * 86400
    due = [txid for txid, seconds in events if limit and seconds > limit]
    for reader in active_readers(read_identity().epoch) if events else ():
        blocked.add_metric([reader.name], float(bool(due) and reader.txid < max(due)))
    yield from (age, blocked, expired)


def _remotes() -> Iterable[Metric]:
    failing = GaugeMetricFamily("inventory_harvest_failing", "1 if the last harvest failed.", labels=["remote"])
    contact = GaugeMetricFamily(
        "inventory_harvest_contact_age_seconds", "Since the remote answered.", labels=["remote"]
    )
    expired = GaugeMetricFamily(
        "inventory_harvest_lease_expired", "1 if a harvest died holding its lease.", labels=["remote"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_REMOTES_SQL)
        for name, is_failing, seconds, is_expired in cursor.fetchall():
            failing.add_metric([name], float(is_failing))
            expired.add_metric([name], float(is_expired))
            if seconds is not None:
                contact.add_metric([name], float(seconds))
    yield from (failing, contact, expired)


def _horizon() -> Iterable[Metric]:
    age = GaugeMetricFamily(
        "inventory_feed_horizon_age_seconds", "Age of the transaction that holds back news; 0 if none does."
    )
    holder = GaugeMetricFamily(
        "inventory_feed_horizon_holder",
        "That transaction: its age by process id, application and database.",
        labels=["pid", "application", "database"],
    )
    with connection.cursor() as cursor:
        cursor.execute(_HORIZON_SQL)
        row = cursor.fetchone()
    age.add_metric([], float(row[3]) if row else 0.0)
    if row:
        holder.add_metric([str(value) for value in row[:3]], float(row[3]))
    yield from (age, holder)
