"""Writes about sites: the outcome of probes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from django.db import connection

from datamodel.logs import unit_of_work
from global_inventory.sites import client
from global_inventory.sites.queries import ProbeTarget
from global_inventory.sites.rules import LATENCY_WEIGHT, Probed

logger = logging.getLogger(__name__)

_ERROR_LENGTH = 300
# The average starts anew when a site comes back; a failed probe leaves it as it was.
_RECORD_SQL = """
    INSERT INTO site_probe (remote_id, read_ok, write_ok, latency_ms, checked_at, failures, last_error)
    SELECT r.id, %(read_ok)s, %(write_ok)s, %(latency)s, inventory_now(), %(failed)s::int, %(error)s
    FROM remote_inventory r WHERE r.id = %(remote)s
    ON CONFLICT (remote_id) DO UPDATE SET
        read_ok = EXCLUDED.read_ok, write_ok = EXCLUDED.write_ok, checked_at = EXCLUDED.checked_at,
        latency_ms = CASE
            WHEN EXCLUDED.latency_ms IS NULL THEN site_probe.latency_ms
            WHEN site_probe.latency_ms IS NULL OR NOT site_probe.read_ok THEN EXCLUDED.latency_ms
            ELSE site_probe.latency_ms + %(weight)s * (EXCLUDED.latency_ms - site_probe.latency_ms) END,
        failures = CASE WHEN EXCLUDED.failures = 0 THEN 0 ELSE site_probe.failures + 1 END,
        last_error = EXCLUDED.last_error
    WHERE site_probe.checked_at <= EXCLUDED.checked_at
"""


def probe_sites(*, targets: Sequence[ProbeTarget], seconds: float) -> dict[str, Probed]:
    """Probe these sites at once and record each outcome as it comes, each in its own transaction.

    Returns by site name within `seconds`; whoever has not answered by then is recorded as not answering. Raises nothing
    about a site. A repeat measures again.
    """
    calls = {target: partial(client.probe_site, target.url, seconds=seconds) for target in targets}
    outcomes: dict[str, Probed] = {}
    for target, probed in client.concurrently(calls, seconds=seconds):
        outcomes[target.name] = probed
        record_probe(target=target, probed=probed)
    for target in targets:
        if target.name not in outcomes:
            silent = Probed(read_ok=False, write_ok=False, latency_ms=None, error=f"no answer within {seconds:g} s")
            outcomes[target.name] = silent
            record_probe(target=target, probed=silent)
    return outcomes


def record_probe(*, target: ProbeTarget, probed: Probed) -> None:
    """Keep the outcome of one probe; one that ended earlier than what is recorded changes nothing."""
    values = {
        "remote": target.remote_id,
        "read_ok": probed.read_ok,
        "write_ok": probed.write_ok,
        "latency": probed.latency_ms,
        "failed": not probed.read_ok,
        "error": probed.error[:_ERROR_LENGTH],
        "weight": LATENCY_WEIGHT,
    }
    with unit_of_work(logger, "probe-site", site=target.name) as work, connection.cursor() as cursor:
        cursor.execute(_RECORD_SQL, values)
        work.note(readable=probed.read_ok, writable=probed.write_ok, error=probed.error or None)
