"""`make bench-long`: two inventories of very many equal artifacts are compared, then 100 of them differ and are mended.

Real inventories on a durable PostgreSQL, real HTTP; beside each figure its limit, in the same run: both ends' scans of the index
that the digests come from, and the comparison that reads every row of both ends. The bytes do not exist: nobody asks for them.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from psycopg import Connection
from rich.console import Console
from rich.table import Table

from datamodel import embedded
from datamodel.ids import new_id
from datamodel.rules import artifact_meta_checksum
from tests.factories import WHEN
from tests.model.world import GLOBAL, SITES, Node, World, running_world

SITE = SITES[0]
DIFFERENT = 100
ROUNDS = 3
_BLOCK = 5000
_COLUMNS = "id, uri, uri_bucket, content_checksum, content_last_modified, content_length, last_modified, meta_checksum, meta_modified_at, txid"
_TABLES = ["artifact", "storage_location", "site_location"]
_ARTIFACT_SCAN = "SELECT count(*), sum(digest) FROM (SELECT digest_word(meta_checksum) AS digest FROM artifact ORDER BY id OFFSET 0) a"
_LOCATION_SCANS = {
    SITE: "SELECT count(*) FROM (SELECT artifact_id FROM storage_location ORDER BY artifact_id OFFSET 0) l",
    GLOBAL: "SELECT count(*) FROM (SELECT artifact_id FROM site_location ORDER BY site_id, artifact_id OFFSET 0) l",
}
_ALL_ROWS = (
    "COPY (SELECT a.id, a.meta_checksum FROM artifact a JOIN {table} l ON l.artifact_id = a.id ORDER BY a.id) TO STDOUT"
)
_CONTENT = f"md5:{hashlib.md5(b'content', usedforsecurity=False).hexdigest()}"


def rows(count: int) -> Iterator[str]:
    """The artifacts as COPY takes them, as if put within minutes; all were known before anything that a feed would still serve."""
    when = WHEN.isoformat()
    for number in range(count):
        identity = new_id()
        uri = f"bench:many/{number}"
        bucket = hashlib.sha1(uri.encode(), usedforsecurity=False).hexdigest()[:5]
        meta = artifact_meta_checksum(
            identity=identity,
            uri=uri,
            uri_bucket=bucket,
            content_checksum=_CONTENT,
            content_last_modified=WHEN,
            content_length=7,
            content_type=None,
            content_encoding=None,
        )
        yield f"{identity}\t{uri}\t{bucket}\t{_CONTENT}\t{when}\t7\t{when}\t{meta}\t{when}\t1\n"


def load(world: World, count: int) -> None:
    """The same artifacts in both, stored at the site; without triggers, for they would make news of them."""
    site, hub = world.nodes[SITE].connection, world.nodes[GLOBAL].connection
    assert site is not None
    assert hub is not None
    ((site_id,),) = world.nodes[SITE].query("SELECT inventory_id FROM inventory_identity")
    for connection in (site, hub):
        connection.execute("SET session_replication_role = replica")
    copy = f"COPY artifact ({_COLUMNS}) FROM STDIN"
    kept = [_drop_indexes(connection) for connection in (site, hub)]
    with site.cursor() as ours, hub.cursor() as theirs, ours.copy(copy) as here, theirs.copy(copy) as there:
        lines = rows(count)
        while block := "".join(islice(lines, _BLOCK)):
            here.write(block)
            there.write(block)
    stored = """INSERT INTO storage_location (artifact_id, storage_id, storage_bucket, stored_at)
        SELECT id, id::text, left(id::text, 3), inventory_now() FROM artifact"""
    known = f"INSERT INTO site_location (artifact_id, site_id) SELECT id, '{site_id}' FROM artifact"
    ends = ("SET session_replication_role = origin", "VACUUM ANALYZE")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_execute_all, (site, hub), ([stored, *kept[0], *ends], [known, *kept[1], *ends])))


def _drop_indexes(connection: Connection[tuple[object, ...]]) -> list[str]:
    """Ten million rows in random order go into a heap in minutes, and into its indexes in hours: they are made afterwards.

    Returns the statements that make them again, keys of other tables that need them last.
    """
    constraints = connection.execute(
        """SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
           WHERE contype IN ('p', 'u', 'f') AND (conrelid::regclass::text = ANY(%(tables)s) OR confrelid::regclass::text = ANY(%(tables)s))
           ORDER BY contype = 'f' DESC""",
        {"tables": _TABLES},
    ).fetchall()
    for table, name, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid::regclass::text = ANY(%s)",
        [_TABLES],
    ).fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    again = [f"ALTER TABLE {table} ADD CONSTRAINT {name} {text}" for table, name, text in reversed(constraints)]
    return ["SET maintenance_work_mem = '512MB'", *(str(text) for _, text in indexes), *again]


def _execute_all(connection: Connection[tuple[object, ...]], statements: list[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def differ(world: World) -> None:
    """A hundred scattered differences: rows that are missing at the global, copies that are, metadata that are old."""
    hub = world.nodes[GLOBAL]
    apart = 2**128 // DIFFERENT
    chosen = "SELECT id FROM artifact WHERE id >= %s ORDER BY id LIMIT 1"
    ids = [str(hub.query(chosen, uuid.UUID(int=number * apart))[0][0]) for number in range(DIFFERENT)]
    missing, copies, old = ids[0::3], ids[1::3], ids[2::3]
    hub.query("SET session_replication_role = replica")
    hub.query("DELETE FROM site_location WHERE artifact_id = ANY(%s::uuid[])", missing + copies)
    hub.query("DELETE FROM artifact WHERE id = ANY(%s::uuid[])", missing)
    hub.query(
        """UPDATE artifact SET content_type = 'text/plain', meta_modified_at = meta_modified_at - interval '1 day',
           meta_checksum = artifact_meta_checksum(id, uri, uri_bucket, content_checksum, content_last_modified, content_length,
               'text/plain', NULL) WHERE id = ANY(%s::uuid[])""",
        old,
    )
    hub.query("SET session_replication_role = origin")


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def scan_both(world: World, statements: Mapping[str, str]) -> None:
    """Each end reads an index once, at the same time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: world.nodes[name].query(statements[name]), statements))


def compare_all(world: World) -> int:
    """What a comparison without digests does: both ends send every row, in order; how many differ."""
    with ThreadPoolExecutor(2) as pool:
        tables = {SITE: "storage_location", GLOBAL: "site_location"}
        sent = pool.map(lambda name: _all_rows(world.nodes[name], tables[name]), tables)
        ours, theirs = (set(text.splitlines()) for text in sent)
    return len({line.partition(b"\t")[0] for line in ours ^ theirs})


def _all_rows(node: Node, table: str) -> bytes:
    connection: Connection[tuple[object, ...]] | None = node.connection
    assert connection is not None
    with connection.cursor() as cursor, cursor.copy(_ALL_ROWS.format(table=table)) as copy:
        return b"".join(map(bytes, copy))


def reconcile(world: World, mode: str, expected: int) -> float:
    """Seconds; the differences found must be so many."""
    world.await_quiet_databases()
    found: dict[str, int] = {}
    taken = seconds(lambda: found.update(world.do(GLOBAL, "reconcile", remote=SITE, mode=mode)))
    if sum(found.values()) != expected:
        raise AssertionError(f"expected {expected} differences, found {found}")
    return taken


def run(world: World, count: int, console: Console) -> Table:
    """Load, measure, break, measure."""
    console.print(f"loading 2 x {count:,} artifacts: {seconds(lambda: load(world, count)):,.0f} s")
    table = Table("figure", "seconds", title=f"{count:,} artifacts at each end")
    digests = dict.fromkeys((SITE, GLOBAL), _ARTIFACT_SCAN)
    scans = [seconds(lambda: scan_both(world, digests)) for _ in range(ROUNDS)]
    locations = [seconds(lambda: scan_both(world, _LOCATION_SCANS)) for _ in range(ROUNDS)]
    equal = [reconcile(world, "report", 0) for _ in range(ROUNDS)]
    differ(world)
    mended = reconcile(world, "all", DIFFERENT)
    ((traffic, requests),) = world.nodes[GLOBAL].query(
        "SELECT traffic_bytes, requests FROM reconcile_run ORDER BY started_at DESC LIMIT 1"
    )
    again = reconcile(world, "report", 0)
    everything = seconds(lambda: compare_all(world))
    best = min(scans)
    for name, taken in (
        ("both ends scan their index of digests (limit)", best),
        ("both ends scan their index of locations", min(locations)),
        ("equal: compared", min(equal)),
        (f"{DIFFERENT} different: found and mended", mended),
        ("equal again: compared", again),
        ("full-scan comparison of every row (limit)", everything),
    ):
        table.add_row(name, f"{taken:,.2f}  ({taken / best:.1f} x scans)")
    table.add_row("on the wire for the different ones", f"{traffic:,} bytes in {requests} requests")
    return table


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="make bench-long", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="artifacts at each end")
    arguments = parser.parse_args()
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="inventory-bench-"))
    try:
        servers = embedded.start(directory / "servers", durable=True)
        (directory / "world").mkdir()
        with running_world(directory / "world", servers=servers.environment, template=None) as world:
            console.print(run(world, arguments.rows, console))
    finally:
        embedded.stop(directory / "servers")
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
