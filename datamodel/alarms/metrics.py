"""Gauges of the alarms, each a query at scrape time (names and meanings: README.md)."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from datamodel.alarms import channels
from datamodel.alarms.rules import AlarmKind

_OPEN_SQL = "SELECT kind, count(*), count(acknowledged_at) FROM alarm WHERE cleared_at IS NULL GROUP BY kind"
_DUE_SQL = """
    SELECT d.channel, count(*), count(*) FILTER (WHERE d.last_error <> ''),
        extract(epoch FROM (SELECT inventory_now()) - min(a.told_at))
    FROM alarm_delivery d JOIN alarm a ON a.id = d.alarm_id WHERE d.round < a.round GROUP BY d.channel
"""


def collect() -> Iterable[Metric]:
    """What is open, and what nobody could be told of."""
    is_open = GaugeMetricFamily("inventory_alarms_open", "Alarms that are not cleared", labels=["kind"])
    seen = GaugeMetricFamily("inventory_alarms_acknowledged", "Those that somebody is at", labels=["kind"])
    waiting = GaugeMetricFamily(
        "inventory_alarms_undelivered", "Alarms that this channel was not told yet", labels=["channel"]
    )
    failing = GaugeMetricFamily(
        "inventory_alarm_deliveries_failing", "Those of them whose last attempt failed", labels=["channel"]
    )
    age = GaugeMetricFamily(
        "inventory_alarms_undelivered_seconds", "How long the oldest of them waits", labels=["channel"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_OPEN_SQL)
        found = {kind: counts for kind, *counts in cursor.fetchall()}
        cursor.execute(_DUE_SQL)
        due = {channel: values for channel, *values in cursor.fetchall()}
    for kind in AlarmKind:
        counts = found.get(kind.value, [0, 0])
        is_open.add_metric([kind.value], counts[0])
        seen.add_metric([kind.value], counts[1])
    for channel in channels.names():
        count, failed, seconds = due.get(channel, [0, 0, 0])
        waiting.add_metric([channel], count)
        failing.add_metric([channel], failed)
        age.add_metric([channel], max(float(seconds), 0.0))
    yield from (is_open, seen, waiting, failing, age)
