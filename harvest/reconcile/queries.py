"""Reads of reconcile: digests and listings of a scope, each from one snapshot, and what is known here of single artifacts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from datamodel import queries as model_queries
from datamodel.errors import NotReadyError
from datamodel.models import HarvestState, RemoteInventory
from datamodel.positions import Cursor, read_identity
from datamodel.rules import ArtifactRow
from datamodel.uris import Namespace, prefix_upper_bound
from harvest.feed import Head, read_head
from harvest.queries import cursor_of, harvested_streams, load_selection, namespaces_of
from harvest.reconcile.scope import Digest, Filter, Kind, Listed, Scope, Tree, id_range, parts_of
from harvest.rules import Selection
from harvest.streams import ARTIFACTS, Stream

# Above a join the planner computes each digest anew; only of a scan by itself does it read them from the index. OFFSET keeps it
# from merging that into what is around it.
_EACH_SQL = "SELECT id, digest_word(meta_checksum) AS digest FROM artifact WHERE id >= r.low AND id <= r.high ORDER BY id OFFSET 0"
# The digests of many parts are one scan of two indexes, side by side in order of ids; the planner, which takes each part for much of
# the table, would hash that.
_SIDE_BY_SIDE = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off"
# Nor does it know how few different beginnings ids have: it would sort, or spill.
_ROOM_TO_GROUP = "SET LOCAL work_mem = '64MB'"
# Sets of as many ids with the same sum of hashes (64 bits each) are taken to be the same. Two sums of a part cost a quarter less than joining
# the two indexes over it. Counts do not tell: at a global a location may be there before its artifact.
_HASHES = "count(*) AS count, sum(uuid_hash_extended({column}, 0)) AS hashes"
# It pays where nearly all artifacts are stored, which so many parts of a tree tell.
_SAMPLED_PARTS, _MOST_JOINED = 16, 2
# A scan of very many rows takes longer than a request may.
_SCAN_SECONDS = 600

Condition = tuple[str, list[Any]]
"""A boolean SQL expression over the artifact `a` and its parameters."""


@dataclass(frozen=True, slots=True)
class ScopeTree:
    """The digests of a scope at one moment."""

    head: Head
    tree: Tree


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows of some prefixes after an id, at one moment; `more` follow after the last one."""

    head: Head
    rows: list[Listed]
    more: bool


def read_tree(scope: Scope, *, depth: int, prefixes: Sequence[str] = ()) -> ScopeTree:
    """Digests by the first `depth` digits of the id; of all ids, or of those under the prefixes."""
    with transaction.atomic():
        head = _begin()
        chosen = _parts(scope)
        with connection.cursor() as cursor:
            cursor.execute(_SIDE_BY_SIDE if all(part.is_covered for part in chosen) else _ROOM_TO_GROUP)
            parts = [
                _ranged(scope.site_id, depth, prefixes) if part.is_covered else _grouped(part, depth, prefixes)
                for part in chosen
            ]
            sql = " UNION ALL ".join(text for text, _ in parts)
            cursor.execute(
                f"SELECT prefix, sum(count)::bigint, sum(total) FROM ({sql}) t WHERE count > 0 GROUP BY prefix",
                [value for _, values in parts for value in values],
            )
            return ScopeTree(head, {prefix: Digest(count, int(total) % 2**64) for prefix, count, total in cursor})


def read_listing(scope: Scope, *, prefixes: Sequence[str], after: uuid.UUID | None, limit: int) -> Listing:
    """The rows of the prefixes in order of ids, at most `limit` of those after the id."""
    with transaction.atomic():
        head = _begin()
        inside, values = _under(prefixes)
        if after is not None:
            inside, values = f"{inside} AND a.id > %s", [*values, after]
        parts = [
            (f"SELECT a.id, a.meta_checksum FROM {part.tables} WHERE {part.where} AND {inside}", part.values)
            for part in _parts(scope)
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                f"{' UNION ALL '.join(text for text, _ in parts)} ORDER BY 1 LIMIT %s",
                [value for _, own in parts for value in [*own, *values]] + [limit + 1],
            )
            rows = [Listed(*row) for row in cursor]
    return Listing(head, rows[:limit], more=len(rows) > limit)


def read_here(scope: Scope, ids: Sequence[uuid.UUID], uris: Sequence[str], *, for_update: bool) -> HereRows:
    """What is known here of these ids and uris; `for_update` locks the artifacts until the end of the transaction."""
    tables, own = _stored(scope.site_id)
    columns = model_queries.ARTIFACT_COLUMNS
    lock = " ORDER BY a.id FOR UPDATE OF a" if for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {columns} FROM artifact a WHERE a.id = ANY(%s) OR a.uri = ANY(%s){lock}", [list(ids), list(uris)]
        )
        artifacts = [model_queries.artifact_from(row) for row in cursor.fetchall()]
        cursor.execute(f"SELECT a.id FROM {tables} WHERE a.id = ANY(%s)", [*own, list(ids)])
        stored = {row[0] for row in cursor.fetchall()}
        cursor.execute("SELECT id FROM deleted_artifact_event WHERE id = ANY(%s)", [list(ids)])
        deleted = {row[0] for row in cursor.fetchall()}
    by_uri = {row.uri: row for row in artifacts}
    return HereRows({row.id: row for row in artifacts}, by_uri, frozenset(stored), frozenset(deleted))


@dataclass(frozen=True, slots=True)
class Memory:
    """Whose deletions until when may be forgotten: ours at a global, which judges what it lacks; the remote's at a site, which
    judges what only it has, if the remote has read it (`passed`).
    """

    expired_until: datetime | None
    passed: frozenset[uuid.UUID] | None

    def may_lack(self, identity: uuid.UUID, artifact: ArtifactRow | None) -> bool:
        if artifact is None or self.expired_until is None or artifact.content_last_modified > self.expired_until:
            return False
        return self.passed is None or identity in self.passed


@dataclass(frozen=True, slots=True)
class RemoteMemory:
    """Until when the remote may have forgotten deletions, and the last transaction of ours that it had applied before that was asked."""

    expired_until: datetime | None = None
    passed_txid: int = 0


def read_memory(ids: Sequence[uuid.UUID], told: RemoteMemory) -> Memory:
    """After the tombstones were looked up: what is forgotten since then is not believed to be there."""
    if settings.INVENTORY_ROLE == "global":
        return Memory(read_identity().gone_at, None)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT a.id FROM artifact a JOIN storage_location l ON l.artifact_id = a.id WHERE a.id = ANY(%s) AND a.txid <= %s",
            [list(ids), told.passed_txid],
        )
        passed = frozenset(row[0] for row in cursor.fetchall())
    return Memory(told.expired_until, passed)


def excluded_rows(scope: Scope, *, limit: int, for_update: bool) -> list[tuple[uuid.UUID, str]]:
    """Rows that the filter no longer takes; at a site only those of which nothing is, or is to be repaired, here."""
    inside, values = _in_filter(scope.filter)
    if settings.INVENTORY_ROLE == "global":
        if not scope.filter.included:
            return []
        kept = "true"
    else:
        kept = (
            "NOT EXISTS (SELECT FROM storage_location l WHERE l.artifact_id = a.id) "
            "AND NOT EXISTS (SELECT FROM deleted_storage_location_event e WHERE e.id = a.id AND NOT e.is_dropped)"
        )
    lock = " FOR UPDATE OF a SKIP LOCKED" if for_update else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_SCAN_SECONDS * 1000}")
        cursor.execute(
            f"SELECT a.id, a.uri FROM artifact a WHERE NOT {inside} AND {kept} LIMIT %s{lock}", [*values, limit]
        )
        return [(row[0], row[1]) for row in cursor.fetchall()]


def read_cursors(remote_id: int) -> Cursors:
    """How far each stream of a remote was harvested."""
    states = HarvestState.objects.filter(remote_id=remote_id, name__in=[s.name for s in harvested_streams()])
    main = {state.name: state for state in states if not state.selector}
    backfills = {state.selector: cursor_of(state) for state in states if state.selector}
    covers = main[ARTIFACTS.name].covers if ARTIFACTS.name in main else []
    return Cursors({name: cursor_of(state) for name, state in main.items()}, tuple(covers), backfills)


def scope_with(remote: RemoteInventory) -> Scope:
    """The set that we compare with this remote, by our role and what we want now. Raises `NotReadyError`."""
    if settings.INVENTORY_ROLE == "global":
        if remote.site_id is None:
            raise NotReadyError(f"{remote.name} has not said yet which site it is: harvest it first")
        return Scope(Kind.STORED, remote.site_id, Filter(namespaces_of(settings.INVENTORY_NAMESPACES)))
    return Scope(Kind.KNOWN, read_identity().inventory_id, filter_of(load_selection()))


def filter_of(selection: Selection) -> Filter:
    """What a site wants, as both ends can say it."""
    rules = selection.rules or tuple((name, True) for name in selection.wanted)
    included, excluded = (tuple(name for name, wanted in rules if wanted is flag) for flag in (True, False))
    return Filter(included, excluded)


def estimated_rows() -> int:
    """About how many artifacts are known here."""
    return model_queries.row_count("artifact")


@dataclass(frozen=True, slots=True)
class HereRows:
    """Artifacts by id and by uri; which ids are stored (at a global: by the site of the scope), which deleted for ever."""

    by_id: Mapping[uuid.UUID, ArtifactRow]
    by_uri: Mapping[str, ArtifactRow]
    stored: frozenset[uuid.UUID]
    deleted: frozenset[uuid.UUID]


@dataclass(frozen=True, slots=True)
class Cursors:
    """By stream; of artifacts the main one serves the namespaces in `covers` (none: all), backfills serve one each."""

    main: Mapping[str, Cursor | None]
    covers: tuple[str, ...]
    backfills: Mapping[str, Cursor | None]

    def have_passed(self, stream: Stream, place: Cursor, uri: str | None, *, is_selected: bool) -> bool:
        """Whether what stands at that place of the stream has been harvested."""
        found = self.main.get(stream.name)
        if stream is ARTIFACTS and uri is not None and is_selected:
            served = [cursor for name, cursor in self.backfills.items() if uri.startswith(name)]
            if served:
                found = served[0]
            elif self.covers and not uri.startswith(self.covers):
                found = None
        if found is None or found.epoch != place.epoch:
            return False
        return (found.txid, found.row_id.int) >= (place.txid, place.row_id.int)

    def are_of(self, epoch: str) -> bool:
        """Whether every stream has been harvested in that epoch."""
        return bool(self.main) and all(found is not None and found.epoch == epoch for found in self.main.values())


@dataclass(frozen=True, slots=True)
class _Part:
    """A scope is the union of parts without common rows."""

    tables: str
    where: str
    values: list[Any]
    # Whether it is everything stored, for which indexes answer without a look at the rows.
    is_covered: bool


def _parts(scope: Scope) -> list[_Part]:
    tables, own = _stored(scope.site_id)
    inside, values = _in_filter(scope.filter)
    if scope.kind is Kind.STORED:
        if not scope.filter.included:
            return [_Part(tables, "true", own, is_covered=True)]
        return [_Part(tables, inside, [*own, *values], is_covered=False)]
    # Not one scan with OR: that would look at every row of a global for a site that wants few.
    beside = _Part(tables, f"NOT {inside}", [*own, *values], is_covered=not scope.filter.included)
    if not scope.filter.included:
        return [beside]
    return [_Part("artifact a", inside, values, is_covered=False), beside]


def _stored(site_id: uuid.UUID) -> tuple[str, list[Any]]:
    table, of_site, own = _locations(site_id)
    return f"artifact a JOIN {table} ON l.artifact_id = a.id AND {of_site}", own


def _locations(site_id: uuid.UUID) -> tuple[str, str, list[Any]]:
    """The table `l`, which of its rows are those of the site, and the parameters of that."""
    if settings.INVENTORY_ROLE == "global":
        return "site_location l", "l.site_id = %s", [site_id]
    return "storage_location l", "true", []


def _in_filter(chosen: Filter) -> Condition:
    parts = []
    values: list[Any] = []
    for name, holes in chosen.regions:
        inside, bounds = _within([name])
        values += bounds
        if holes:
            outside, bounds = _within(holes)
            inside, values = f"({inside} AND NOT {outside})", [*values, *bounds]
        parts.append(inside)
    return f"({' OR '.join(parts) or 'false'})", values


def _within(names: Sequence[Namespace]) -> Condition:
    ranges = " OR ".join("(a.uri >= %s AND a.uri < %s)" for _ in names)
    return f"({ranges})", [bound for name in names for bound in (name.value, prefix_upper_bound(name.value))]


def _under(prefixes: Sequence[str]) -> Condition:
    """Ranges of ids, which their index serves."""
    ranges = " OR ".join("(a.id >= %s AND a.id <= %s)" for _ in prefixes)
    return f"({ranges or 'true'})", [bound for prefix in prefixes for bound in id_range(prefix)]


def _ranged(site_id: uuid.UUID, depth: int, prefixes: Sequence[str]) -> Condition:
    """Digests of everything stored, by a scan of each range of ids."""
    names = parts_of(depth, prefixes)
    table, of_site, own = _locations(site_id)
    inside = f"{of_site} AND l.artifact_id >= r.low AND l.artifact_id <= r.high"
    joined = f"SELECT count(*) AS count, sum(a.digest) AS total FROM ({_EACH_SQL}) a JOIN {table} ON l.artifact_id = a.id WHERE {inside}"
    found, values = f"({joined})", own
    if _are_nearly_all_stored(site_id, names):
        found, values = (
            f"""(SELECT {_HASHES.format(column="l.artifact_id")} FROM {table} WHERE {inside}) l,
            LATERAL (SELECT {_HASHES.format(column="a.id")}, sum(a.digest) AS total FROM ({_EACH_SQL}) a) a,
            LATERAL (SELECT a.count, a.total WHERE (a.count, a.hashes) = (l.count, l.hashes)
                UNION ALL SELECT j.count, j.total FROM ({joined}) j WHERE (a.count, a.hashes) <> (l.count, l.hashes))""",
            [*own, *own],
        )
    sql = f"SELECT r.prefix, d.count, d.total FROM unnest(%s::text[], %s::uuid[], %s::uuid[]) r(prefix, low, high), LATERAL {found} d"
    low, high = _bounds(names)
    return sql, [[name[:depth] for name in names], low, high, *values]


def _are_nearly_all_stored(site_id: uuid.UUID, names: Sequence[str]) -> bool:
    """Whether most parts have a location for each of their artifacts, and no other; by some of them, for ids are spread evenly."""
    if len(names) < _SAMPLED_PARTS**2:
        return False
    low, high = _bounds(names[:: len(names) // _SAMPLED_PARTS])
    table, of_site, own = _locations(site_id)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT count(*) FROM unnest(%s::uuid[], %s::uuid[]) r(low, high),
            LATERAL (SELECT {_HASHES.format(column="a.id")} FROM artifact a WHERE a.id >= r.low AND a.id <= r.high) a,
            LATERAL (SELECT {_HASHES.format(column="l.artifact_id")} FROM {table}
                WHERE {of_site} AND l.artifact_id >= r.low AND l.artifact_id <= r.high) l
            WHERE a.count <> l.count OR a.hashes <> l.hashes""",
            [low, high, *own],
        )
        return int(cursor.fetchone()[0]) <= _MOST_JOINED


def _bounds(names: Sequence[str]) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    ranges = [id_range(name) for name in names]
    return [low for low, _ in ranges], [high for _, high in ranges]


def _grouped(part: _Part, depth: int, prefixes: Sequence[str]) -> Condition:
    """The same where rows have to be looked at, which the planner may do in any order."""
    inside, values = _under(prefixes)
    sql = (
        f"SELECT left(replace(a.id::text, '-', ''), {depth:d}) AS prefix, count(*) AS count, sum(digest_word(a.meta_checksum)) AS total "
        f"FROM {part.tables} WHERE {part.where} AND {inside} GROUP BY 1"
    )
    return sql, [*part.values, *values]


def _begin() -> Head:
    """One snapshot for the statements that follow."""
    head = read_head()
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_SCAN_SECONDS * 1000}")
    return head
