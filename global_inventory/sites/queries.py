"""The table of sites as ranking needs it: one statement, at most two seconds old in each process."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import connection

from datamodel.models import RemoteInventory
from datamodel.notify import Freshness
from global_inventory.sites.models import SiteRule
from global_inventory.sites.rules import Direction, NamespaceRule, RuleKind, SiteState

_CACHE_SECONDS = 2.0
_SITES_SQL = """
    SELECT r.site_id, r.name, r.url, s.allow_read, s.allow_write, coalesce(w.read_only, false), coalesce(w.offline, false),
        p.remote_id IS NOT NULL, coalesce(p.read_ok, false), coalesce(p.write_ok, false), p.latency_ms,
        coalesce(p.last_error, '')
    FROM remote_inventory r JOIN storage_site s ON s.id = r.site_id
        LEFT JOIN site_probe p ON p.remote_id = r.id LEFT JOIN site_switch w ON w.remote_id = r.id
    WHERE r.role = 'site' AND r.enabled ORDER BY r.name
"""


@dataclass(frozen=True, slots=True)
class SiteTable:
    """Every site that can be named in an answer, and the operators' rules."""

    sites: Mapping[uuid.UUID, SiteState]
    rules: tuple[NamespaceRule, ...]


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A site to probe: also one whose own row has not been harvested yet."""

    remote_id: int
    name: str
    url: str


def read_site_table() -> SiteTable:
    """Asks the database."""
    with connection.cursor() as cursor:
        cursor.execute(_SITES_SQL)
        sites = {row[0]: SiteState(*row) for row in cursor.fetchall()}
    rows = SiteRule.objects.filter(remote__site__in=sites).values_list("namespace", "remote__site", "direction", "kind")
    rules = tuple(NamespaceRule(prefix, site, Direction(way), RuleKind(kind)) for prefix, site, way, kind in rows)
    return SiteTable(sites, rules)


def probe_targets(remote_ids: list[int] | None = None) -> list[ProbeTarget]:
    """The enabled sites (or those named): a site switched offline is probed too, so that its return can be seen."""
    remotes = RemoteInventory.objects.filter(role=RemoteInventory.Role.SITE, enabled=True).order_by("name")
    if remote_ids is not None:
        remotes = remotes.filter(id__in=remote_ids)
    return [ProbeTarget(*row) for row in remotes.values_list("id", "name", "url")]


class SiteTableCache:
    """Ranking costs no query: what this process knows of the sites is at most two seconds old; it hears at once of one that was revoked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = SiteTable({}, ())
        self._freshness: Freshness | None = None

    def get(self) -> SiteTable:
        with self._lock:
            known = self._freshness
            if known is None or known.age > _CACHE_SECONDS or not known.is_good:
                freshness = Freshness.now()
                self._table, self._freshness = read_site_table(), freshness
            return self._table

    def clear(self) -> None:
        with self._lock:
            self._freshness = None


site_table_cache = SiteTableCache()
