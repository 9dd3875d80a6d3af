"""What validation found, how old its last word is, and what is in quarantine."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import connection
from prometheus_client.core import GaugeMetricFamily, Metric

from site_service.file_validate.rules import Label, Policy

_FINDINGS_SQL = "SELECT label, count(*) FROM validation_finding WHERE state = 'open' AND policy = %s GROUP BY label"
_RUN_SQL = """
    SELECT extract(epoch FROM inventory_now() - max(finished_at)),
        coalesce(sum(CASE WHEN state = 'running' AND last_error <> '' THEN 1 ELSE 0 END), 0)
    FROM validation_run WHERE policy = %s AND bucket_prefix = ''
"""
_QUARANTINE_SQL = (
    "SELECT count(*), coalesce(sum(content_length), 0) FROM quarantined_object WHERE state = 'quarantined'"
)
_POLICY = Policy.INVENTORY_IS_ALWAYS_RIGHT.value


def collect() -> Iterator[Metric]:
    """Of the policy that beat runs; the age is NaN until a run was complete."""
    findings = GaugeMetricFamily(
        "inventory_validate_findings", "Open findings of file validate by label", labels=["label"]
    )
    with connection.cursor() as cursor:
        cursor.execute(_FINDINGS_SQL, [_POLICY])
        found = dict(cursor.fetchall())
        cursor.execute(_RUN_SQL, [_POLICY])
        age, failing = cursor.fetchone()
        cursor.execute(_QUARANTINE_SQL)
        held, size = cursor.fetchone()
    for label in Label:
        if label is not Label.VALID:
            findings.add_metric([label.value], found.get(label.value, 0))
    yield findings
    yield GaugeMetricFamily(
        "inventory_validate_complete_age_seconds",
        "Time since a run over all buckets was complete",
        value=float(age) if age is not None else float("nan"),
    )
    yield GaugeMetricFamily("inventory_validate_failing", "1 while the present run cannot go on", value=int(failing))
    yield GaugeMetricFamily("inventory_quarantined_objects", "Objects in quarantine", value=held)
    yield GaugeMetricFamily("inventory_quarantined_bytes", "Their bytes, as far as known", value=float(size))
