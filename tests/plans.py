"""What runs, planned as it would be over tables of ten million rows: nothing on a path that is taken often may read a whole one.

The tables are filled with a few thousand rows and analyzed; then the catalog says that there are many more of the same kind in
them. PostgreSQL's planner believes that. Whoever is watched runs for real, and each of its statements is explained at the moment
at which it is sent, with its values and, if it is one that is prepared, without them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from django.db import connection

ROWS = 3000
PRETENDED_ROWS = 10_000_000
# Half of what it costs to look at every row of one such table, and far more than a page of some thousand rows does.
MOST_COST = 50_000
# The planner expects a hundred of so many in a namespace of which it knows nothing; and what a tenth of them may cost.
FEW, COST_OF_FEW = 20_000, 500
_EXPLAINED = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|MERGE)\b", re.IGNORECASE)
_COPY_OUT = re.compile(r"\s*COPY \((.*)\) TO STDOUT", re.DOTALL)
_PLACEHOLDER = re.compile(r"%%|%s|%\((\w+)\)s")


@dataclass
class Watch:
    """What was found so far, by the name of whoever is at it."""

    looked_at: int = 0
    prepared: int = 0
    offences: list[str] = field(default_factory=list)
    _name: str = ""
    _most: float = MOST_COST
    _may_read: frozenset[str] = frozenset()

    @contextmanager
    def at(self, name: str, *, most: float = MOST_COST, may_read: frozenset[str] = frozenset()) -> Iterator[None]:
        """What is sent within the block is its; no statement may cost more than `most`, nor read a whole table but these."""
        self._name, self._most, self._may_read = name, most, may_read
        before = self.looked_at
        yield
        assert self.looked_at > before, f"{name} sends nothing that could be explained"

    def explain(self, statement: str, values: Any, *, is_prepared: bool) -> None:
        if not _EXPLAINED.match(statement):
            return
        self.looked_at += 1
        with psycopg.ClientCursor(connection.connection) as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", values)
            self._judge(statement, cursor.fetchone(), "")
            if is_prepared:
                self.prepared += 1
                cursor.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {_numbered(statement)}")
                self._judge(statement, cursor.fetchone(), " (prepared)")

    def _judge(self, statement: str, row: Any, how: str) -> None:
        plan = row[0][0]["Plan"]
        whole = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"} & GROWING
        if whole - self._may_read or (plan["Total Cost"] > self._most and not whole):
            reads = f" reads all of {', '.join(sorted(whole))}" if whole else ""
            text = " ".join(statement.split())
            self.offences.append(f"{self._name}{how}{reads} at a cost of {plan['Total Cost']:,.0f}: {text}")


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Everything that this thread sends over Django's connection."""
    watch = Watch()
    copy: Callable[..., Any] = psycopg.Cursor.copy

    def copy_watched(cursor: Any, statement: Any, params: Any = None, **rest: Any) -> Any:
        if found := _COPY_OUT.match(str(statement)):
            watch.explain(found[1], params, is_prepared=False)
        return copy(cursor, statement, params, **rest)

    def execute(send: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        is_prepared = type(context["cursor"].cursor) is psycopg.Cursor
        for values in list(params)[:1] if many else [params]:
            watch.explain(sql, values, is_prepared=is_prepared)
        return send(sql, params, many, context)

    with monkeypatch.context() as patches, connection.execute_wrapper(execute):
        patches.setattr(psycopg.Cursor, "copy", copy_watched)
        yield watch


@contextmanager
def many_rows(site_ids: Sequence[object], *, rows: int = ROWS, pretended: int = PRETENDED_ROWS) -> Iterator[None]:
    """Tables of which the planner believes that they have `pretended` rows each, held by these sites; they have `rows`."""
    parameters = connection.get_connection_params()
    own = {name: parameters[name] for name in ("dbname", "user", "host", "port")}
    with psycopg.connect(**own, autocommit=True) as filler:
        filler.execute("SET session_replication_role = replica")
        for table in GROWING:
            filler.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        try:
            for statement in _FILL:
                filler.execute(statement, {"rows": rows, "sites": list(site_ids)})
            filler.execute(f"ANALYZE {', '.join(GROWING)}")
            filler.execute(_PRETEND, {"tables": list(GROWING), "factor": pretended / rows})
            yield
        finally:
            for table in GROWING:
                filler.execute(f"TRUNCATE {table} CASCADE")
                filler.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of a plan as `EXPLAIN (FORMAT JSON)` gives it, from its root."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def _numbered(statement: str) -> str:
    """Its placeholders as PostgreSQL writes them."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%"
        name = found[1] or f"#{len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(number, statement)


# Every table that has a row for each file, for each change or for each attempt.
GROWING = {
    "artifact",
    "storage_location",
    "site_location",
    "deleted_artifact_event",
    "storage_location_event",
    "deleted_storage_location_event",
    "retired_artifact",
    "obsolete_storage_location",
    "audit_entry",
    "sync_attempt",
    "copy_verification",
    "copy_release",
    "damaged_copy",
}
_PRETEND = """
    UPDATE pg_class SET reltuples = reltuples * %(factor)s WHERE reltuples > 0
        AND (oid = ANY(%(tables)s::regclass[]) OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY(%(tables)s::regclass[])))
"""
_FILL = [
    """CREATE TEMP TABLE n AS SELECT n, gen_random_uuid() AS id, gen_random_uuid() AS other, 'cadc:MANY/' || n AS uri,
        inventory_now() - n * interval '3 hours' AS at FROM generate_series(1, %(rows)s) n""",
    """INSERT INTO artifact (id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified,
        meta_checksum, meta_modified_at, txid)
    SELECT id, uri, left(md5(uri), 5), 'md5:' || md5(uri), at, 7, at,
        artifact_meta_checksum(id, uri, left(md5(uri), 5), 'md5:' || md5(uri), at, 7, NULL, NULL), at, 1 + n / 6 FROM n ORDER BY id""",
    "INSERT INTO storage_location SELECT id, md5(id::text), left(md5(id::text), 3), at FROM n WHERE mod(n, 20) > 0",
    "INSERT INTO site_location (artifact_id, site_id) SELECT id, site FROM n, unnest(%(sites)s::uuid[]) site",
    """INSERT INTO storage_location_event (id, uri, last_modified, meta_checksum, txid)
    SELECT id, uri, at, 'md5:' || md5(uri), 1 + n / 6 FROM n""",
    """INSERT INTO deleted_storage_location_event (id, uri, last_modified, meta_checksum, txid)
    SELECT other, uri, at, 'md5:' || md5(uri), 1 + n / 6 FROM n""",
    """INSERT INTO deleted_artifact_event (id, uri, last_modified, meta_checksum, deleted_at, txid)
    SELECT other, uri, at, 'md5:' || md5(uri), at, 1 + n / 6 FROM n""",
    """INSERT INTO retired_artifact (id, uri, content_checksum, content_length, born_at, died_at, ended_at, storage_id,
        storage_bucket, state, state_at)
    SELECT other, uri, 'md5:' || md5(uri), 7, at - interval '1 day', at, at, md5(other::text), left(md5(other::text), 3),
        CASE WHEN mod(n, 10) < 8 THEN 'purged' ELSE 'retained' END, at FROM n""",
    "INSERT INTO obsolete_storage_location SELECT gen_random_uuid(), md5('o' || n), left(md5('o' || n), 3), at, 'md5:' || md5(uri) FROM n",
    """INSERT INTO audit_entry (txid, at, who, method, address, action, subject, outcome, reason, request_id, count, details)
    SELECT 1 + n / 6, at, 'who' || mod(n, 10), 'token', '', CASE WHEN mod(n, 100) > 0 THEN 'put' ELSE 'delete' END, uri, 'done', '', '', 1, '{}' FROM n""",
    """INSERT INTO sync_attempt (artifact_id, uri, content_length, priority, is_repair, created_at, attempts, next_try_at,
        last_reason, last_error)
    SELECT id, uri, 7, mod(n, 3), false, at, 0, at + interval '1 hour', '', '' FROM n""",
    """INSERT INTO copy_verification (artifact_id, storage_id, storage_bucket, content_length, namespace, verified_at, next_at, result, failures)
    SELECT id, md5(id::text), left(md5(id::text), 3), 7, '', at, at + interval '90 days', 'read', 0 FROM n WHERE mod(n, 20) > 0""",
    """INSERT INTO retire_run (id, namespace, reason, started_by, state, after, is_listed, files, bytes, dropped_files, dropped_bytes,
        refused_files, gone_files, started_at, finished_at)
    SELECT other, 'cadc:OLD/', '', '', 'finished', '', true, 0, 0, 0, 0, 0, 0, at, at FROM n WHERE n <= 20""",
    """INSERT INTO copy_release (id, run_id, artifact_id, uri, content_checksum, content_length, state, reason, detail, tries,
        next_try_at, state_at)
    SELECT n.other, r.id, n.id, n.uri, 'md5:' || md5(n.uri), 7, 'dropped', '', '', 1, n.at, n.at
    FROM n JOIN (SELECT id, row_number() OVER () AS number FROM retire_run) r ON r.number = 1 + mod(n.n, 20)""",
    """INSERT INTO damaged_copy (id, artifact_id, uri, storage_id, storage_bucket, content_length, content_checksum, finding, detail,
        found_by, found_at, last_verified_at, state, state_at, repair_reason, repair_detail, checked_at)
    SELECT other, id, uri, md5('d' || n), left(md5('d' || n), 3), 7, 'md5:' || md5(uri), 'digest', '', 'scrub', at, at,
        CASE WHEN mod(n, 100) > 0 THEN 'released' ELSE 'damaged' END, at, '', '', at FROM n""",
]
